"""The command line: `foldmark COMMAND`. Every command with its text, the function that it calls, and its options; make targets
have the same names.

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


class Given(SimpleNamespace):
    """The options of a command as attributes, None where an option was not given; `command` is the command's name."""

    def read(self, what: str) -> Any:
        """An option, or what `commands.setup` reads from several, such as the session or the experiment."""
        reader = getattr(import_module("foldmark.commands.setup"), f"read_{what}", None)
        return reader(self) if reader else getattr(self, what)

    def need(self, name: str) -> str:
        """The text of an argument. Raises UserError with what it means where it was not given."""
        if not getattr(self, name):
            meaning = ARGUMENTS[name.upper()]
            raise UserError(f"{name.upper()}=: is needed: {meaning[0].lower()}{meaning[1:]}")
        return getattr(self, name)


class _Text(click.ParamType):
    """A text as it is. Click would split an environment variable at its spaces where an option may be given again."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _option(name: str, text: str, **more: Any) -> Callable:
    return click.option(f"--{name.replace('_', '-')}", name, envvar=f"FOLDMARK_{name.upper()}", help=text, **more)


def _argument(name: str) -> Callable:
    return click.argument(name, envvar=f"FOLDMARK_{name.upper()}", required=False)


# `make help` prints the texts of the next three tables, so each stands on one line.
COMMANDS = {
    "data": "Fetch, check and unpack the real data sets; resumes an interrupted download.",
    "check": "Check all faces: damage, wrong points, duplicates, leakage. Exit code 2: training would stop or be wrong.",
    "train": "Train the folds of an experiment; resumes where it was interrupted.",
    "tune": "Search the config keys that configs/search.yaml names; write the best config into runs/<config>-search.",
    "compare": "Compare all trained experiments on the data set of CONFIG, with intervals; find their best blend.",
    "csv": "Ensemble the finished folds on the test list; write and check submissions/<experiment>.csv.",
    "submit": "Check the CSV, made first if it is missing or stale, and upload it when Kaggle is configured.",
    "checkcsv": "List all that is wrong with a competition file, ours or foreign, against the test list.",
    "verify": "Rebuild a competition file from the checkpoints in its record; say identical or how far off.",
    "score": "Record the leaderboard score LB of a competition file in submissions/ledger.csv.",
    "ledger": "Show all competition files with their out-of-fold figures and scores; draw submissions/ledger.png.",
    "part1": "The course's part 1: the nose tip on IMM; figures and page in runs/part1.",
    "part2": "The course's part 2: all 58 points on IMM; figures and page in runs/part2.",
    "extra": "Part 2 with ResNet18, plain and anti-aliased: 12 trainings, best on a GPU.",
    "photos": "Find the faces in your own photos, predict their points and draw them, into photos/<experiment>.",
    "predict": "Predict all faces in SOURCE (folders, photos, lists (.txt), iBUG labels (.xml)) into points.csv and points.json.",
    "distill": "Train one net on an ensemble's points: without a fold, to judge it there, then on all faces, to take away.",
    "export": "Export one net of an experiment to ONNX, in floats and int8, compared with torch: exports/<experiment>.onnx.",
    "demo": "Write exports/<experiment>-demo.html, a page that runs the exported net in the browser, on photos or the camera.",
    "report": "Write runs/<experiment>/report.html, one page with all figures, curves and pictures, and how to repeat it.",
    "model": "Print a variant's layers, parameters and operations.",
    "synthetic": "Write synthetic faces with exact points into FOLDER, in the layout of the iBUG archive.",
    "dashboard": "Open W&B's terminal dashboard over the runs made here.",
    "sync": "Upload what W&B lacks of the runs made here, each epoch once (after `wandb login`).",
    "workspace": "Save a page of curves, worst faces and variants in W&B, over the uploaded runs.",
}
ARGUMENTS = {
    "FILE": "Competition file for checkcsv, verify and score, such as submissions/resnet18.csv.",
    "LB": "Leaderboard score of FILE, such as 7.54.",
    "PHOTOS": "Folder with photos of your own, or one photo, such as ~/Pictures/friends.",
    "MODEL": "Config whose layers are printed, such as resnet18.",
}
CONFIG = _option("config", "A name in configs/, or a .yaml file. [default: resnet18; on synthetic faces synthetic]")
SEARCH = _option("search", "Search file for tune: keys, ranges, folds, budget. [default: configs/search.yaml]")
DATA_ROOT = _option("data_root", "Folder that holds the data sets. [default: data]")
NAME = _option("name", "Name of the experiment. [default: the config's]")
SET = _option("set", "Override config keys, such as 'train.epochs=3 crop.size=96'.", multiple=True, type=_Text())
DEVICE = _option("device", "auto, cpu, cuda, cuda:1 or mps. [default: auto]", default="auto")
WANDB = _option("wandb", "offline, online (after `wandb login`) or disabled. [default: offline]", default="offline")
NOTES = _option("notes", "Notes that W&B shows beside the run.", default="")
WORKERS = _option("workers", "Folds to train at a time, or auto: one for each GPU, or for each core. [default: 1]", default="")
CLUSTER = _option("cluster", "Ray cluster to train on: auto for the one of this machine, or an address.", default="")
FOLDS = _option("folds", "Folds to train, such as '0 1' [default: all]; for export, distill: one; for tune: judges.", default="")
UNLABELLED = _option("unlabelled", "Folder with pictures without labels, from whose faces distill learns, too.", default="")
COMPETITION = _option("competition", "Kaggle competition that `submit` uploads to.")
FORCE = _option("force", "Upload a CSV that was edited after it was made (make: FORCE=1).", is_flag=True)
BOX = _option("box", "Box x,y,w,h of the face in one photo, where none is found.", default="")
IBUG = _option("ibug", "Source of iBUG 300-W: a URL, an archive or a folder. [default: dlib.net's]")
TEST_LIST = _option("test_list", "Source of the competition's list of test faces: a URL or a file.")
IMM = _option("imm", "Source of the IMM Face Database: a URL, an archive or a folder.")

PATH, COUNT = click.Path(path_type=Path), click.IntRange(1, 100_000)
FILE, LB = _argument("file"), _argument("lb")
EXPERIMENT = (CONFIG, NAME, SET, DATA_ROOT)
SESSION = (DEVICE, WANDB, NOTES)
TRAINING = (WORKERS, CLUSTER, *SESSION)
PART = (SET, DATA_ROOT, *TRAINING)
DISTILL = (*EXPERIMENT, FOLDS, UNLABELLED, *TRAINING)
PHOTOS = (CONFIG, NAME, BOX, DATA_ROOT, DEVICE)
PREDICT = (
    click.argument("source", nargs=-1, required=True, type=PATH),
    _option("run", "Run folder, name or exported file (again for a blend). [default: CONFIG's]", multiple=True, type=_Text()),
    _option("out", "Folder for the results. [default: photos/<experiment>]", type=PATH),
    _option("draw", "Also draw annotated pictures and a contact sheet.", is_flag=True),
)
SYNTHETIC = (
    click.argument("folder", type=PATH),
    click.option("--train-faces", default=400, show_default=True, type=COUNT),
    click.option("--test-faces", default=50, show_default=True, type=COUNT),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1)),
)

# The function that a command calls, what it is given by name, read in this order, and the command's options.
CALLS: dict[str, tuple[str, str, tuple[Callable, ...]]] = {
    "data": ("commands.data:fetch", "data_root sources", (DATA_ROOT, IBUG, TEST_LIST, IMM)),
    "check": ("commands.check:check", "session experiment variables", EXPERIMENT),
    "train": ("commands.train:train", "session folds experiment variables", (*EXPERIMENT, FOLDS, *TRAINING)),
    "tune": ("commands.experiments:tune", "session search variables", (SEARCH, *EXPERIMENT, FOLDS, *TRAINING)),
    "compare": ("commands.experiments:compare", "session data variables", (CONFIG, DATA_ROOT, DEVICE)),
    "csv": ("commands.submission:csv", "session experiment variables", (*EXPERIMENT, *SESSION)),
    "submit": ("commands.submission:submit", "session experiment competition force", (*EXPERIMENT, COMPETITION, FORCE, *SESSION)),
    "checkcsv": ("commands.csv_files:check_csv", "file experiment", (FILE, *EXPERIMENT)),
    "verify": ("commands.csv_files:verify_csv", "session file data_root", (FILE, DATA_ROOT, DEVICE)),
    "score": ("commands.csv_files:add_score", "session file lb", (FILE, LB)),
    "ledger": ("commands.csv_files:show_ledger", "session", ()),
    "part1": ("commands.parts:run_part", "session command data_root overrides variables", PART),
    "part2": ("commands.parts:run_part", "session command data_root overrides variables", PART),
    "extra": ("commands.parts:run_part", "session command data_root overrides variables", PART),
    "photos": ("commands.photos:draw_photos", "session given", (_argument("photos"), *PHOTOS)),
    "predict": ("commands.photos:predict_sources", "session given", (*PREDICT, *PHOTOS)),
    "distill": ("commands.export:distill", "session folds experiment unlabelled variables", DISTILL),
    "export": ("commands.export:export", "session folds experiment variables", (*EXPERIMENT, FOLDS)),
    "demo": ("commands.export:make_demo", "session folds experiment variables", (*EXPERIMENT, FOLDS)),
    "report": ("report.report:make_report", "session experiment variables", EXPERIMENT),
    "model": ("commands.experiments:show_model", "session model overrides", (_argument("model"), SET)),
    "synthetic": ("commands.data:write_synthetic", "folder train_faces test_faces seed", SYNTHETIC),
    "dashboard": ("commands.wandb_runs:dashboard", "session", ()),
    "sync": ("commands.wandb_runs:sync", "session", ()),
    "workspace": ("commands.workspace:save_workspace", "", ()),
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="foldmark", message="foldmark %(version)s")
def app() -> None:
    """Foldmark: from a folder of annotated faces to a checked competition file."""


def _add_command(command: str) -> None:
    target, words, options = CALLS[command]

    def run(**options: Any) -> None:
        given = Given(command=command, **options)
        # Read before the module is imported, so that a wrong setting is answered at once.
        arguments = {word: given.read(word) for word in words.split()}
        module, name = target.split(":")
        sys.exit(getattr(import_module(f"foldmark.{module}"), name)(**arguments) or 0)

    for option in reversed(options):
        run = option(run)
    app.command(command, help=COMMANDS[command])(run)


for _name in COMMANDS:
    _add_command(_name)


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
