"""The command line: `foldmark COMMAND`. Every command with its options and one call; make targets have the same names.

Options are also read from the environment, as FOLDMARK_CONFIG for --config: that is how make hands its variables over, whatever
quotes, spaces or backticks they hold. Commands import what they need when they run, so that help answers at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from foldmark.core.errors import UserError


class Given(SimpleNamespace):
    """What the user gave a command: an attribute for each option, None where it was not given."""

    @property
    def overrides(self) -> list[str]:
        """The config overrides; one SET may hold several."""
        from foldmark.core.config import split_overrides

        return [override for text in self.set for override in split_overrides(text)]

    def session(self) -> Any:
        from foldmark.commands.setup import make_session

        return make_session(self)

    def experiment(self) -> Any:
        from foldmark.commands.setup import open_experiment

        return open_experiment(self)

    def data(self, kind: str = "ibug") -> Any:
        from foldmark.commands.setup import open_data

        return open_data(self, kind)

    def require(self, option: str, example: str) -> str:
        """The text of an option. Raises UserError with an example where it was not given."""
        value = getattr(self, option)
        if not value:
            raise UserError(f"{option.upper()}=: name one, such as {option.upper()}={example}.")
        return value


class _Text(click.ParamType):
    """A text as it is. Click would split an environment variable at its spaces where an option may be given again."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _option(name: str, text: str, **more: Any) -> Callable:
    return click.option(f"--{name.replace('_', '-')}", name, envvar=f"FOLDMARK_{name.upper()}", help=text, **more)


def _argument(name: str, **more: Any) -> Callable:
    return click.argument(name, envvar=f"FOLDMARK_{name.upper()}", required=False, **more)


CONFIG = _option("config", "A name in configs/, or a .yaml file. [default: resnet18; on synthetic faces synthetic]")
DATA_ROOT = _option("data_root", "Folder that holds the data sets. [default: data]")
NAME = _option("name", "Name of the experiment. [default: the config's]")
SET = _option("set", 'Override config keys: "train.epochs=3 crop.size=96" (again for more).', multiple=True, type=_Text())
DEVICE = _option("device", "auto, cpu, cuda, cuda:1 or mps.", default="auto", show_default=True)
WANDB = _option("wandb", "offline, online or disabled.", default="offline", show_default=True)
NOTES = _option("notes", "Notes that W&B shows beside the run.", default="")
FOLDS = _option("folds", 'Which folds, such as "0 1". [default: all]', default="")
COMPETITION = _option("competition", "Kaggle competition to upload to.")
FORCE = _option("force", "Upload a CSV that was edited after it was made.", is_flag=True)
IBUG = _option("ibug", "iBUG 300-W: a URL, an archive or a folder. [default: dlib.net's]")
TEST_LIST = _option("test_list", "The competition's list of test faces: a URL or a file.")
IMM = _option("imm", "The IMM Face Database: a URL, an archive or a folder.")
BOX = _option("box", "x,y,w,h: the face's box, for one photo.", default="")
FILE = _argument("file")
EXPERIMENT = (CONFIG, NAME, SET, DATA_ROOT)
SESSION = (DEVICE, WANDB, NOTES)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="foldmark", message="foldmark %(version)s")
def app() -> None:
    """Foldmark: from a folder of annotated faces to a checked competition file."""


def _command(*options: Callable) -> Callable:
    """A command of the function's name, which takes what the user gave for these options."""

    def register(function: Callable[[Given], None]) -> click.Command:
        def call(**given: Any) -> None:
            function(Given(**given))

        for option in reversed(options):
            call = option(call)
        return app.command(function.__name__.removesuffix("_"), help=function.__doc__)(call)

    return register


@_command(DATA_ROOT, IBUG, TEST_LIST, IMM)
def data(given: Given) -> None:
    """Fetch, check and unpack the real data sets, going on where a download broke off."""
    from foldmark.commands.data import fetch
    from foldmark.core.files import expand_user

    root = expand_user(Path(given.data_root), "DATA_ROOT") if given.data_root else given.session().places.data
    fetch(root, {"IBUG": given.ibug, "TEST_LIST": given.test_list, "IMM": given.imm})


@_command(*EXPERIMENT)
def check(given: Given) -> None:
    """Look at all faces before training: damage, wrong points, duplicates, leakage. Exit code 2: training would stop or be wrong;
    0: it is safe, warnings or not."""
    experiment = given.experiment()
    from foldmark.commands.check import check

    sys.exit(0 if check(given.session(), experiment) else 2)


@_command(*EXPERIMENT, FOLDS, *SESSION)
def train(given: Given) -> None:
    """Train the folds of an experiment, going on where it was interrupted."""
    from foldmark.commands.setup import parse_folds

    folds, experiment = parse_folds(given.folds), given.experiment()
    from foldmark.commands.train import train

    train(given.session(), experiment, folds)


@_command(DATA_ROOT, DEVICE)
def compare(given: Given) -> None:
    """Put all trained experiments into one table, with intervals, and find their best blend."""
    data = given.data()
    from foldmark.commands.compare import compare

    compare(given.session(), data)


@_command(*EXPERIMENT, *SESSION)
def csv(given: Given) -> None:
    """Ensemble the finished folds, of a blend all its experiments', on the test list; write and check the CSV."""
    experiment = given.experiment()
    from foldmark.commands.submission import csv

    csv(given.session(), experiment)


@_command(*EXPERIMENT, COMPETITION, FORCE, *SESSION)
def submit(given: Given) -> None:
    """Check the CSV, made first if it is missing or stale, and upload it when Kaggle is configured."""
    experiment = given.experiment()
    from foldmark.commands.submission import submit

    submit(given.session(), experiment, given.competition, force=given.force)


@_command(FILE, *EXPERIMENT)
def checkcsv(given: Given) -> None:
    """List all that is wrong with a competition file, ours or foreign, against the test list."""
    path, experiment = Path(given.require("file", "submissions/resnet18.csv")), given.experiment()
    from foldmark.commands.csv_files import check_csv

    check_csv(path, experiment.data, experiment.config.crop)


@_command(FILE, DATA_ROOT, DEVICE)
def verify(given: Given) -> None:
    """Rebuild a competition file from its recorded checkpoints; say identical or how far off."""
    path, data = Path(given.require("file", "submissions/resnet18.csv")), given.data()
    from foldmark.commands.csv_files import verify_csv

    verify_csv(given.session(), path, data)


@_command(FILE, _argument("lb"))
def score(given: Given) -> None:
    """Note the leaderboard's answer LB to a competition file in submissions/ledger.csv."""
    from foldmark.commands.csv_files import add_score

    add_score(given.session(), Path(given.require("file", "submissions/resnet18.csv")), given.lb or "")


@_command()
def ledger(given: Given) -> None:
    """Show submissions/ledger.csv, and how well out-of-fold figures predicted the leaderboard."""
    from foldmark.commands.csv_files import show_ledger

    show_ledger(given.session())


def _part(given: Given, name: str) -> None:
    from foldmark.commands.parts import find_part, run_part

    session = given.session()
    part = find_part(name, session.places, given.overrides)
    run_part(part, session, given.data("imm"), given.overrides)


PART = (SET, DATA_ROOT, *SESSION)


@_command(*PART)
def part1(given: Given) -> None:
    """The course's part 1: the nose tip on IMM; figures and page in runs/part1."""
    _part(given, "part1")


@_command(*PART)
def part2(given: Given) -> None:
    """The course's part 2: all 58 points on IMM; figures and page in runs/part2."""
    _part(given, "part2")


@_command(*PART)
def extra(given: Given) -> None:
    """Part 2 with ResNet18, plain and anti-aliased: 12 trainings, best on a GPU."""
    _part(given, "part2-extra")


@_command(_argument("photos"), CONFIG, NAME, BOX, DATA_ROOT, DEVICE)
def photos(given: Given) -> None:
    """Find the faces in your own photos, predict their points and draw them, into photos/<experiment>."""
    from foldmark.commands.photos import predict_sources

    given.source, given.run, given.out, given.draw = [Path(given.require("photos", "~/Pictures/friends"))], (), None, True
    predict_sources(given.session(), given)


@_command(
    click.argument("source", nargs=-1, required=True, type=click.Path(path_type=Path)),
    _option("run", "Run folder or name (again for a blend). [default: CONFIG's]", multiple=True),
    _option("out", "Folder for the results. [default: photos/<experiment>]", type=click.Path(path_type=Path)),
    _option("draw", "Also draw annotated pictures and a contact sheet.", is_flag=True),
    *(CONFIG, NAME, BOX, DATA_ROOT, DEVICE),
)
def predict(given: Given) -> None:
    """Predict the points of all faces in SOURCE (folders, photos, lists of them (.txt), iBUG label files (.xml)) into points.csv
    and points.json."""
    from foldmark.commands.photos import predict_sources

    predict_sources(given.session(), given)


@_command(*EXPERIMENT)
def report(given: Given) -> None:
    """Write runs/<experiment>/report.html, one page with all there is to show, and how to repeat it."""
    experiment = given.experiment()
    from foldmark.report.report import make_report

    variables = {"CONFIG": given.config, "NAME": given.name, "DATA_ROOT": given.data_root}
    make_report(experiment, given.session().places, {key: value for key, value in variables.items() if value})


@_command(_argument("config"), SET)
def model(given: Given) -> None:
    """Print a variant's layers, parameters and operations."""
    from foldmark.commands.model import show_model

    show_model(given.session().places, given.require("config", "resnet18"), given.overrides)


@_command(
    click.argument("folder", type=click.Path(path_type=Path)),
    click.option("--train-faces", default=400, show_default=True, type=click.IntRange(1, 100_000)),
    click.option("--test-faces", default=50, show_default=True, type=click.IntRange(1, 100_000)),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1)),
)
def synthetic(given: Given) -> None:
    """Write synthetic faces with exact points into FOLDER, in the layout of the iBUG archive."""
    from foldmark.show.terminal import say_made
    from foldmark.synthetic.ibug import write_synthetic_faces

    say_made(write_synthetic_faces(given.folder, train_faces=given.train_faces, test_faces=given.test_faces, seed=given.seed))


@_command()
def dashboard(given: Given) -> None:
    """Open W&B's terminal dashboard over the runs made here."""
    from foldmark.commands.wandb_runs import dashboard

    sys.exit(dashboard(given.session().places.root))


@_command()
def sync(given: Given) -> None:
    """Upload the W&B runs made offline, each once."""
    from foldmark.commands.wandb_runs import sync

    sync(given.session().places.root)


@_command()
def workspace(given: Given) -> None:
    """Save a page of curves, worst faces and variants in W&B, over the uploaded runs."""
    from foldmark.commands.workspace import save_workspace

    save_workspace()


def main() -> None:
    """Run the command line. Ends with exit code 2 for what the user can mend, 130 after Ctrl-C."""
    from foldmark.show.terminal import say_error, show_log

    show_log()
    try:
        app(standalone_mode=False)
    except UserError as error:
        say_error(error)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("\nfoldmark: stopped; the same command goes on from what is finished.", file=sys.stderr)
        sys.exit(130)
