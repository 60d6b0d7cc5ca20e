"""The command line: `foldmark COMMAND`. Every command with its options and one call; make targets have the same names.

Options are also read from the environment, as FOLDMARK_CONFIG for --config: that is how make hands its variables over, whatever
quotes, spaces or backticks they hold. A command's module is imported when it runs, so that help answers at once.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from foldmark.core.errors import UserError

Call = tuple  # a function of Foldmark as "module:name", and its arguments


class Given(SimpleNamespace):
    """The options of a command as attributes, None where an option was not given."""

    def read(self, what: str) -> Any:
        """Read several options together, such as the session or the experiment: see `commands.setup`."""
        return getattr(import_module("foldmark.commands.setup"), f"read_{what}")(self)

    def need(self, option: str, example: str) -> str:
        """The text of an option. Raises UserError with an example where it was not given."""
        value = getattr(self, option)
        if not value:
            raise UserError(f"{option.upper()}=: name one, such as {option.upper()}={example}.")
        return value

    @property
    def csv(self) -> Path:
        return Path(self.need("file", "submissions/resnet18.csv"))


class _Text(click.ParamType):
    """A text as it is. Click would split an environment variable at its spaces where an option may be given again."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _option(name: str, text: str, **more: Any) -> Callable:
    return click.option(f"--{name.replace('_', '-')}", name, envvar=f"FOLDMARK_{name.upper()}", help=text, **more)


def _argument(name: str) -> Callable:
    return click.argument(name, envvar=f"FOLDMARK_{name.upper()}", required=False)


PATH = click.Path(path_type=Path)
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
BOX = _option("box", "x,y,w,h: the face's box, for one photo.", default="")
FILE = _argument("file")
EXPERIMENT = (CONFIG, NAME, SET, DATA_ROOT)
SESSION = (DEVICE, WANDB, NOTES)
SOURCES = (
    _option("ibug", "iBUG 300-W: a URL, an archive or a folder. [default: dlib.net's]"),
    _option("test_list", "The competition's list of test faces: a URL or a file."),
    _option("imm", "The IMM Face Database: a URL, an archive or a folder."),
)
PREDICT = (
    click.argument("source", nargs=-1, required=True, type=PATH),
    _option("run", "Run folder or name (again for a blend). [default: CONFIG's]", multiple=True, type=_Text()),
    _option("out", "Folder for the results. [default: photos/<experiment>]", type=PATH),
    _option("draw", "Also draw annotated pictures and a contact sheet.", is_flag=True),
)
SYNTHETIC = (
    click.argument("folder", type=PATH),
    click.option("--train-faces", default=400, show_default=True, type=click.IntRange(1, 100_000)),
    click.option("--test-faces", default=50, show_default=True, type=click.IntRange(1, 100_000)),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1)),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="foldmark", message="foldmark %(version)s")
def app() -> None:
    """Foldmark: from a folder of annotated faces to a checked competition file."""


def _command(*options: Callable) -> Callable:
    """A command of the function's name with these options. The function gives the call that the command is: its arguments are
    read before the called module is imported, so that a wrong setting is answered at once."""

    def register(function: Callable[[Given], Call]) -> click.Command:
        def run(**given: Any) -> None:
            target, *arguments = function(Given(**given))
            module, name = target.split(":")
            sys.exit(getattr(import_module(f"foldmark.{module}"), name)(*arguments) or 0)

        for option in reversed(options):
            run = option(run)
        return app.command(function.__name__, help=function.__doc__)(run)

    return register


@_command(DATA_ROOT, *SOURCES)
def data(given: Given) -> Call:
    """Fetch, check and unpack the real data sets; resumes an interrupted download."""
    return (
        "commands.data:fetch",
        given.read("data_root"),
        {name.upper(): getattr(given, name) for name in ("ibug", "test_list", "imm")},
    )


@_command(*EXPERIMENT)
def check(given: Given) -> Call:
    """Check all faces before training: damage, wrong points, duplicates, leakage. Exit code 2: training would stop or be wrong;
    0: it is safe, warnings or not."""
    return "commands.check:check", given.read("session"), given.read("experiment")


@_command(*EXPERIMENT, FOLDS, *SESSION)
def train(given: Given) -> Call:
    """Train the folds of an experiment; resumes where it was interrupted."""
    folds = given.read("folds")
    return "commands.train:train", given.read("session"), given.read("experiment"), folds


@_command(CONFIG, DATA_ROOT, DEVICE)
def compare(given: Given) -> Call:
    """Put all trained experiments on the data set of CONFIG into one table, with intervals, and find their best blend."""
    return "commands.compare:compare", given.read("session"), given.read("data")


@_command(*EXPERIMENT, *SESSION)
def csv(given: Given) -> Call:
    """Ensemble the finished folds, of a blend all its experiments', on the test list; write and check the CSV."""
    return "commands.submission:csv", given.read("session"), given.read("experiment")


@_command(*EXPERIMENT, COMPETITION, FORCE, *SESSION)
def submit(given: Given) -> Call:
    """Check the CSV, made first if it is missing or stale, and upload it when Kaggle is configured."""
    return "commands.submission:submit", given.read("session"), given.read("experiment"), given.competition, given.force


@_command(FILE, *EXPERIMENT)
def checkcsv(given: Given) -> Call:
    """List all that is wrong with a competition file, ours or foreign, against the test list."""
    return "commands.csv_files:check_csv", given.csv, given.read("experiment")


@_command(FILE, DATA_ROOT, DEVICE)
def verify(given: Given) -> Call:
    """Rebuild a competition file from its recorded checkpoints; say identical or how far off."""
    return "commands.csv_files:verify_csv", given.read("session"), given.csv, given.read("data_root")


@_command(FILE, _argument("lb"))
def score(given: Given) -> Call:
    """Record the leaderboard score LB of a competition file in submissions/ledger.csv."""
    return "commands.csv_files:add_score", given.read("session"), given.csv, given.lb or ""


@_command()
def ledger(given: Given) -> Call:
    """Show submissions/ledger.csv, and how well out-of-fold figures predicted the leaderboard."""
    return "commands.csv_files:show_ledger", given.read("session")


@_command(SET, DATA_ROOT, *SESSION)
def part1(given: Given) -> Call:
    """The course's part 1: the nose tip on IMM; figures and page in runs/part1."""
    return "commands.parts:run_part", "part1", given.read("session"), given.read("data_root"), given.read("overrides")


@_command(SET, DATA_ROOT, *SESSION)
def part2(given: Given) -> Call:
    """The course's part 2: all 58 points on IMM; figures and page in runs/part2."""
    return "commands.parts:run_part", "part2", given.read("session"), given.read("data_root"), given.read("overrides")


@_command(SET, DATA_ROOT, *SESSION)
def extra(given: Given) -> Call:
    """Part 2 with ResNet18, plain and anti-aliased: 12 trainings, best on a GPU."""
    return "commands.parts:run_part", "part2-extra", given.read("session"), given.read("data_root"), given.read("overrides")


@_command(_argument("photos"), CONFIG, NAME, BOX, DATA_ROOT, DEVICE)
def photos(given: Given) -> Call:
    """Find the faces in your own photos, predict their points and draw them, into photos/<experiment>."""
    given.source, given.run, given.out, given.draw = [Path(given.need("photos", "~/Pictures/friends"))], (), None, True
    return "commands.photos:predict_sources", given.read("session"), given


@_command(*PREDICT, CONFIG, NAME, BOX, DATA_ROOT, DEVICE)
def predict(given: Given) -> Call:
    """Predict the points of all faces in SOURCE (folders, photos, lists of them (.txt), iBUG label files (.xml)) into points.csv
    and points.json."""
    return "commands.photos:predict_sources", given.read("session"), given


@_command(*EXPERIMENT)
def report(given: Given) -> Call:
    """Write runs/<experiment>/report.html, one page with all there is to show, and how to repeat it."""
    variables = {name.upper(): getattr(given, name) or "" for name in ("config", "name", "data_root")}
    return "report.report:make_report", given.read("experiment"), given.read("session").places, variables


@_command(_argument("config"), SET)
def model(given: Given) -> Call:
    """Print a variant's layers, parameters and operations."""
    return "commands.model:show_model", given.read("session"), given.need("config", "resnet18"), given.read("overrides")


@_command(*SYNTHETIC)
def synthetic(given: Given) -> Call:
    """Write synthetic faces with exact points into FOLDER, in the layout of the iBUG archive."""
    return "commands.data:write_synthetic", given.folder, given.train_faces, given.test_faces, given.seed


@_command()
def dashboard(given: Given) -> Call:
    """Open W&B's terminal dashboard over the runs made here."""
    return "commands.wandb_runs:dashboard", given.read("session")


@_command()
def sync(given: Given) -> Call:
    """Upload the W&B runs made offline, each once."""
    return "commands.wandb_runs:sync", given.read("session")


@_command()
def workspace(given: Given) -> Call:
    """Save a page of curves, worst faces and variants in W&B, over the uploaded runs."""
    return ("commands.workspace:save_workspace",)


def main() -> None:
    """Run the command line. Ends with exit code 2 for errors that the user can fix, 130 after Ctrl-C."""
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
        print("\nfoldmark: stopped; run the same command again to resume.", file=sys.stderr)
        sys.exit(130)
