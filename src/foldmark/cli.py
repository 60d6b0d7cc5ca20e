"""The command line: `foldmark COMMAND`. Commands import what they need when they run, so that help answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from foldmark import __version__
from foldmark.core.errors import UserError

app = typer.Typer(
    help="Foldmark: from a folder of annotated faces to a checked competition file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    str | None, typer.Option(help="A name in configs/, or a .yaml file. [default: resnet18, on synthetic faces: synthetic]")
]
DataRoot = Annotated[Path, typer.Option(help="Folder that holds the iBUG archive.")]
Name = Annotated[str | None, typer.Option(help="Name of the experiment. [default: the config's]")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a config key: train.epochs=3 (again for more).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
File = Annotated[str, typer.Argument(help="A competition file, such as submissions/resnet18.csv.")]
Wandb = Annotated[str, typer.Option(help="offline, online or disabled.")]
Notes = Annotated[str, typer.Option(help="Notes that W&B shows beside the run.")]


@app.command()
def train(
    config: Config = None,
    data_root: DataRoot = Path("data"),
    name: Name = None,
    set_: Set = None,
    folds: Annotated[str, typer.Option(help='Which folds, such as "0 1". [default: all]')] = "",
    device: Device = "auto",
    wandb: Wandb = "offline",
    notes: Notes = "",
) -> None:
    """Train the folds of an experiment, going on where it was interrupted."""
    from foldmark.runs.experiment import experiments

    _, members, data = experiments(data_root, config, name, _overrides(set_))
    asked_folds = _fold_numbers(folds)
    from foldmark.commands import pipeline

    for member, settings in members.items():
        pipeline.train(member, settings, data, asked_folds, device, wandb, notes)


@app.command()
def csv(
    config: Config = None,
    data_root: DataRoot = Path("data"),
    name: Name = None,
    set_: Set = None,
    device: Device = "auto",
    wandb: Wandb = "offline",
    notes: Notes = "",
) -> None:
    """Ensemble the finished folds, of a blend all its experiments', on the test list; write and check the CSV."""
    from foldmark.runs.experiment import experiments

    label, members, data = experiments(data_root, config, name, _overrides(set_))
    from foldmark.commands import pipeline

    pipeline.make_csv(label, list(members), data, _overrides(set_), device, wandb, notes)


@app.command()
def submit(
    config: Config = None,
    data_root: DataRoot = Path("data"),
    name: Name = None,
    set_: Set = None,
    device: Device = "auto",
    wandb: Wandb = "offline",
    notes: Notes = "",
    competition: Annotated[str | None, typer.Option(help="Kaggle competition to upload to.")] = None,
) -> None:
    """Check the CSV (made first if it is not there) and upload it when Kaggle is configured."""
    from foldmark.runs.experiment import experiments

    label, members, data = experiments(data_root, config, name, _overrides(set_))
    from foldmark.commands import pipeline

    pipeline.submit(label, list(members), data, _overrides(set_), device, wandb, competition, notes)


@app.command("check-submission")
def check_submission(
    file: File,
    config: Config = None,
    data_root: DataRoot = Path("data"),
    set_: Set = None,
) -> None:
    """List all that is wrong with a competition file, ours or foreign, against the test list."""
    from foldmark.runs.experiment import experiment

    path = _named(file)
    _, settings, data = experiment(data_root, config, None, _overrides(set_))
    from foldmark.commands.submission_checks import check_csv

    check_csv(path, data, settings.crop)


@app.command()
def verify(file: File, data_root: DataRoot = Path("data"), device: Device = "auto") -> None:
    """Rebuild a competition file from its recorded checkpoints; say identical or how far off."""
    from foldmark.runs.experiment import find_data_or_synthesise

    path = _named(file)
    data = find_data_or_synthesise(data_root, "ibug")
    from foldmark.commands.submission_checks import verify_csv

    verify_csv(path, data, device)


@app.command()
def score(file: File, leaderboard: Annotated[str, typer.Argument(help="The score that the leaderboard shows.")]) -> None:
    """Note the leaderboard score of a competition file in submissions/ledger.csv."""
    from foldmark.commands.submission_checks import add_score

    add_score(_named(file), leaderboard)


@app.command()
def ledger() -> None:
    """Show submissions/ledger.csv, and how well out-of-fold figures predicted the leaderboard."""
    from foldmark.commands.submission_checks import show_ledger

    show_ledger()


@app.command()
def compare(data_root: DataRoot = Path("data"), device: Device = "auto") -> None:
    """Put all trained experiments into one table, with intervals, and find their best blend."""
    from foldmark.runs.experiment import find_data_or_synthesise

    data = find_data_or_synthesise(data_root, "ibug")
    from foldmark.report import compare

    compare.compare(data, device)


@app.command()
def leakage(config: Config = None, data_root: DataRoot = Path("data"), set_: Set = None) -> None:
    """Count the held-out faces that a plain KFold would have trained on. Trains nothing."""
    from foldmark.runs.experiment import experiment

    _, settings, data = experiment(data_root, config, None, _overrides(set_))
    from foldmark.doctor.leakage import report_leakage

    report_leakage(data, settings.folds)


@app.command()
def model(
    config: Annotated[str, typer.Argument(help="A name in configs/, or a .yaml file.")],
    set_: Set = None,
) -> None:
    """Print a variant's layers, parameters and operations."""
    from foldmark.core.config import load_config
    from foldmark.data.sets import pick_set

    settings = load_config(config, _overrides(set_))
    import torch

    from foldmark.models.net import build_model, layer_table
    from foldmark.train.state import check_names

    check_names(settings)
    markup = pick_set(settings.data.set).markup
    points = len(settings.data.points) if settings.data.points else markup.count
    print(layer_table(build_model(settings, torch.zeros(points, 2), seed=0), settings))


@app.command()
def data(
    data_root: Annotated[Path, typer.Option(help="Folder to put the data sets into.")] = Path("data"),
    ibug: Annotated[str | None, typer.Option(help="iBUG 300-W: a URL, an archive or a folder. [default: dlib.net's]")] = None,
    test_list: Annotated[str | None, typer.Option(help="The competition's list of test faces: a URL or a file.")] = None,
    imm: Annotated[str | None, typer.Option(help="The IMM Face Database: a URL, an archive or a folder.")] = None,
) -> None:
    """Fetch, check and unpack the real data sets, going on where a download broke off."""
    from foldmark.commands.data import fetch

    fetch(data_root, {"IBUG": ibug, "TEST_LIST": test_list, "IMM": imm})


@app.command()
def part(
    name: Annotated[str, typer.Argument(help="part1, part2 or part2-extra.")],
    data_root: DataRoot = Path("data"),
    set_: Set = None,
    device: Device = "auto",
    wandb: Wandb = "offline",
    notes: Notes = "",
) -> None:
    """Rerun a part of the course on the IMM faces; figures and a page in runs/<part>."""
    from foldmark.commands import parts

    parts.run_part(name, data_root, _overrides(set_), device, wandb, notes)


@app.command()
def check(config: Config = None, data_root: DataRoot = Path("data"), set_: Set = None) -> None:
    """Look at all faces before training: damage, wrong points, duplicates, leakage. Exit code 2: training would stop or be wrong;
    0: it is safe, warnings or not."""
    from foldmark.runs.experiment import experiment

    _, settings, data = experiment(data_root, config, None, _overrides(set_))
    from foldmark.doctor import diagnosis as doctor

    raise typer.Exit(0 if doctor.check(data, settings) else 2)


@app.command()
def report(config: Config = None, data_root: DataRoot = Path("data"), name: Name = None, set_: Set = None) -> None:
    """Write runs/<experiment>/report.html, one page with all there is to show, and how to repeat it."""
    from foldmark.runs.experiment import experiments

    label, members, data = experiments(data_root, config, name, [])
    from foldmark.report.report import make_report

    given = {"CONFIG": config, "NAME": name, "DATA_ROOT": None if data_root == Path("data") else str(data_root)}
    make_report(label, members, data, _overrides(set_), {key: value for key, value in given.items() if value})


@app.command()
def dashboard() -> None:
    """Open W&B's terminal dashboard over the runs made here."""
    from foldmark.commands import wandb_runs

    raise typer.Exit(wandb_runs.dashboard())


@app.command()
def sync() -> None:
    """Upload the offline W&B runs made here, each once."""
    from foldmark.commands import wandb_runs

    wandb_runs.sync()


@app.command()
def workspace() -> None:
    """Save a page of curves, worst faces and variants over the uploaded runs in W&B."""
    from foldmark.commands import workspace

    workspace.save_workspace()


@app.command()
def photos(
    photos: Annotated[str, typer.Argument(help="A folder with photos, or one photo.")],
    config: Config = None,
    name: Name = None,
    box: Annotated[str, typer.Option(help="x,y,w,h: the face's box, for one photo.")] = "",
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Find the faces in your own photos, predict their points and draw them, into photos/<experiment>."""
    if not photos:
        raise UserError("PHOTOS=: name a folder with photos, such as PHOTOS=~/Pictures/friends.")
    _predict([Path(photos)], config, name, None, None, box, True, data_root, device)


@app.command()
def predict(
    source: Annotated[list[Path], typer.Argument(help="Folders, photos, lists of them (.txt) or iBUG label files (.xml).")],
    run: Annotated[list[str] | None, typer.Option(help="Run folder or name (again for a blend). [default: CONFIG's]")] = None,
    config: Config = None,
    name: Name = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results. [default: photos/<experiment>]")] = None,
    box: Annotated[str, typer.Option(help="x,y,w,h: the face's box, for one photo.")] = "",
    draw: Annotated[bool, typer.Option("--draw", help="Also draw annotated pictures and a contact sheet.")] = False,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
) -> None:
    """Predict the points of all faces in pictures, and write them as points.csv and points.json."""
    _predict(source, config, name, run, out, box, draw, data_root, device)


def _predict(
    sources: list[Path],
    config: str | None,
    name: str | None,
    run: list[str] | None,
    out: Path | None,
    box: str,
    draw: bool,
    data_root: Path,
    device: str,
) -> None:
    from foldmark.data.photos import detector, find_photos, refuse_writing_into
    from foldmark.runs.experiment import trained

    if run and (config or name):
        raise UserError("--run: names what --config and --name would; give one of them.")
    label, runs = ("+".join(Path(one).name for one in run), run) if run else trained(config, name)
    sources = [path.expanduser() for path in sources]
    out = out or Path("photos") / label
    refuse_writing_into(sources, out)
    photos = find_photos(sources, box or None)
    if any(photo.boxes_px is None for photo in photos):
        detector()
    from foldmark.commands.photos import predict_photos

    predict_photos(photos, label, runs, out, draw=draw, data_root=data_root, device=device)


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(help="Folder to write the set into.")],
    train_faces: int = 400,
    test_faces: int = 50,
    seed: int = 0,
) -> None:
    """Draw a set of faces with exact points, in the layout of the iBUG archive."""
    from foldmark.synthetic.ibug import write_synthetic_faces

    print(write_synthetic_faces(folder, train_faces=train_faces, test_faces=test_faces, seed=seed))


def _overrides(values: list[str] | None) -> list[str]:
    """Several settings may stand in one SET, as they do in make's SET="a.b=1 c.d=2"."""
    return [override for value in values or [] for override in value.split()]


def _named(file: str) -> Path:
    """make passes an empty name where FILE was forgotten."""
    if not file:
        raise UserError("FILE=: name a competition file, such as FILE=submissions/resnet18.csv.")
    return Path(file)


def _fold_numbers(text: str) -> list[int] | None:
    try:
        return [int(fold) for fold in text.replace(",", " ").split()] or None
    except ValueError:
        raise UserError(f'FOLDS="{text}": write fold numbers, such as FOLDS="0 1".') from None


def _version(asked: bool) -> None:
    if asked:
        print(f"foldmark {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


def main() -> None:
    from foldmark.show.terminal import say_error, show_log

    show_log()
    try:
        app()
    except UserError as error:
        say_error(error)
        sys.exit(2)
    except SystemExit as ended:
        # What typer makes of Ctrl-C, without a word.
        if ended.code == 130:
            print(file=sys.stderr)
            say_error("stopped; the same command goes on from what is finished.")
        raise
