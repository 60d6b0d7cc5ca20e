"""W&B runs: of a training its curves and the same few faces, of out-of-fold (OOF) predictions every face, the errors'
distribution, the regions and how far to trust the uncertainty, and which file was made from which."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from foldmark.core.config import Config
from foldmark.core.faces import Faces
from foldmark.core.files import file_sha256
from foldmark.core.metrics import HEADLINE_METRICS, METRICS, compute_scores, face_nme, face_region_nme, format_scores, region_nme
from foldmark.report.face_sheet import draw_crop
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.places import Places
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.tracker import Artifact, RunInfo, Tracker, start
from foldmark.submission.record import Provenance, record_path
from foldmark.train.listener import Listener

# W&B's names of metrics.csv's columns. W&B sorts charts by name, so the first section has those worth a look first.
KEYS = {
    **{key: f"curves/held_out_{key}" for key in HEADLINE_METRICS},
    **{key: f"curves/{key}" for key in ("loss", "train_mae_px")},
    **{key: f"held_out/{key}" for key in [*METRICS, "mse_crop"] if key not in HEADLINE_METRICS},
    **{key: f"machine/{key}" for key in ("faces_per_second", "memory_mb", "seconds")},
    **{key: f"train/{key.removeprefix('train_')}" for key in ("epoch", "lr", "train_mse", "train_mse_crop")},
}
SHOWN_FACES, PICTURE_SETS = 12, 5  # while a fold trains: so many held-out faces, about so many times
TABLE_WIDTH = 128  # pixels of a face in the table, which holds all of them
CURVE_STEPS = 100
FACES_PER_SECOND = 20  # at least, into a table; slower counts as hanging


@dataclass(frozen=True)
class Group:
    """An experiment's group of W&B runs: its name, the mode, and the notes and tags of its runs."""

    experiment: str
    mode: str = "offline"
    notes: str = ""
    tags: tuple[str, ...] = ()
    job: str = "train"

    def start(self, name: str, settings: dict, folder: Path) -> Tracker:
        """Start a run of the group, or resume the one whose id `folder` holds."""
        return start(RunInfo(self.experiment, name, self.job, settings, folder, self.notes, self.tags), self.mode)


class WandbListener(Listener):
    """Shows a fold in its W&B run: the curves and some held-out faces while it trains, then its OOF predictions and its model.

    An epoch is shown once it stands in metrics.csv, so once a checkpoint has it: a killed training does it again otherwise, and
    W&B takes nothing back. Each process shows all epochs from the first, so that no gap is left by one that was killed. W&B drops
    those that its service has, and `make sync` does for runs made offline.
    """

    def __init__(self, tracker: Tracker, run: Run, fold: int) -> None:
        self.tracker, self.run, self.fold, self.folder = tracker, run, fold, run.fold(fold)
        self.shown = 0  # epochs
        self.seen = 0  # when the metrics.csv was written that was read last, in ns
        self.pictures_at = 0.0  # the epoch of the next pictures
        self.pictures: dict[int, np.ndarray] = {}  # the predictions to draw, by their epoch

    def begin(self, epochs_done: int) -> None:
        self._show_epochs()

    def batch(self, epochs_done: float, mae_px: float) -> None:
        self._show_epochs()

    def epoch(self, row: dict, points_px: np.ndarray | None) -> None:
        if points_px is not None and row["epoch"] >= self.pictures_at and self.tracker.takes_pictures:
            self.pictures_at = row["epoch"] + self.run.config.train.epochs / PICTURE_SETS
            self.pictures[row["epoch"]] = points_px
        self._show_epochs()

    def end(self, summary: dict) -> None:
        self._show_epochs()
        if self.folder.holds_out:
            self._show_figures(summary)
        figures = {key: summary[key] for key in ("faces", "mae_px", "nme", "learned_faces") if key in summary}
        log_model(self.tracker, self.run.places, self.folder, figures)
        scores = (
            f"out of fold: {format_scores(summary)}" if self.folder.holds_out else "it learned all faces, so it has no figure"
        )
        self.tracker.alert(f"{self.run.name}-{self.folder.path.name} is finished", scores)
        # Now, because a fold that is marked as finished is not shown again.
        self.tracker.finish()

    def _show_figures(self, summary: dict) -> None:
        rows, prediction = self.folder.read_oof(self.run.faces)
        show_oof(self.tracker, self.run, rows, prediction.points_px)
        figures = {key: summary[key] for key in ("seconds", "parameters")}
        epoch, nme = self.folder.best_epoch()
        faces = self.run.faces.take(rows)
        summarise(self.tracker, prediction.points_px, faces, **figures, best_epoch=epoch, best_epoch_nme=nme)

    def _show_epochs(self) -> None:
        """Show the epochs that metrics.csv has and W&B has not."""
        written = self.folder.metrics_written
        if written == self.seen or not self.tracker.running:
            return
        self.seen = written
        for row in self.folder.read_epochs()[self.shown :]:
            epoch = self.shown = row["epoch"]
            if epoch in self.pictures:
                held_out, points_px = self.run.held_out_rows(self.fold), self.pictures.pop(epoch)
                shown = choose_faces(held_out)
                show_faces(self.tracker, self.run, held_out[shown], points_px[shown], epoch)
            self.tracker.log(collect_epoch_values(row), epoch)


def list_tags(config: Config, *, synthetic: bool) -> tuple[str, ...]:
    """Tags to filter runs by: the data set, the backbone, its head and its blur."""
    model = [config.model.name, f"{config.model.head} head"]
    if config.model.name.startswith("resnet"):
        model.append(f"blur {config.model.blur}")
    return (config.data.set, "synthetic faces" if synthetic else "real faces", *model)


def collect_epoch_values(row: dict) -> dict[str, float]:
    """An epoch's row of metrics.csv under W&B's names, without what was not measured."""
    return {KEYS[column]: value for column, value in row.items() if column in KEYS and value is not None}


def collect_figures(summary: dict) -> dict[str, float]:
    """A fold's summary.json under W&B's names, as far as it holds what `summarise` shows."""
    oof = {f"oof_{key}": summary[key] for key in METRICS if key in summary}
    return {**oof, **{key: summary[key] for key in ("faces", "seconds", "parameters") if key in summary}}


def choose_faces(held_out: np.ndarray) -> np.ndarray:
    """Which of the held-out faces are shown while a fold trains: the same ones each time."""
    return np.linspace(0, len(held_out) - 1, min(SHOWN_FACES, len(held_out))).astype(int)


def show_faces(tracker: Tracker, run: Run, rows: Sequence[int], points_px: np.ndarray, step: int) -> None:
    """These rows of the run's faces with truth and prediction (n, k, 2) drawn in."""
    if tracker.takes_pictures:
        pictures = [(draw_crop(run, row, points), run.faces.pictures[row]) for row, points in zip(rows, points_px, strict=True)]
        tracker.show(
            lambda wandb: {"held_out_faces": [wandb.Image(picture, caption=caption) for picture, caption in pictures]}, step
        )


def show_oof(tracker: Tracker, run: Run, rows: np.ndarray, points_px: np.ndarray, reliability: Path | None = None) -> None:
    """All OOF predictions points_px (n, k, 2) of these rows of the run's faces: a table with the worst face first, the
    cumulative error curve, the error of each region, and the picture of how reliable the uncertainty is."""
    if not tracker.running:
        return
    held_out = run.faces.take(rows)
    table = build_face_table(points_px, held_out)
    curve = build_cumulative_table(face_nme(points_px, held_out))
    regions = pandas.DataFrame(region_nme(points_px, held_out).items(), columns=["region", "NME %"])

    def draw(wandb: Any, i: int) -> Any:
        face = draw_crop(run, rows[i], points_px[i], TABLE_WIDTH)
        return wandb.Image(face, file_type="jpg", caption=run.faces.pictures[rows[i]])

    def build(wandb: Any) -> dict:
        faces = table.assign(face=[draw(wandb, i) for i in table.index]) if tracker.takes_pictures else table
        shown = {
            "oof_faces": wandb.Table(dataframe=faces),
            "oof_cumulative_error": wandb.plot.line(
                wandb.Table(dataframe=curve), *curve.columns, title="Faces with at most this error, out of fold"
            ),
            "oof_error_per_region": wandb.plot.bar(
                wandb.Table(dataframe=regions), *regions.columns, title="NME per region, out of fold"
            ),
        }
        if reliability:
            shown["oof_reliability"] = wandb.Image(str(reliability))
        return shown

    tracker.show(build, seconds=30 + len(rows) / FACES_PER_SECOND)


def show_error_curve(tracker: Tracker, points_px: np.ndarray, faces: Faces) -> None:
    """The cumulative error curve of OOF predictions (n, k, 2), a line of the history each, which can be laid over those of other
    experiments. Its names come before those of the tables, whose numbers of rows would else be the dashboard's first charts."""
    if tracker.running:
        for row in build_cumulative_table(face_nme(points_px, faces)).itertuples(index=False):
            tracker.log({"error_curve/faces_percent": row[1], "error_curve/nme_percent": row[0]})


def build_face_table(points_px: np.ndarray, faces: Faces) -> pandas.DataFrame:
    """Each face with the set it comes from and its errors, the worst first; the index says which face it is."""
    errors = face_region_nme(points_px, faces)
    regions = np.stack(list(errors.values()), axis=1)
    table = pandas.DataFrame(
        {
            "picture": faces.pictures,
            "source": faces.sources,
            "NME %": face_nme(points_px, faces).round(3),
            "MAE px": np.abs(points_px - faces.points_px).mean(axis=(1, 2)).round(3),
            "worst region": np.array(list(errors))[regions.argmax(axis=1)],
            "NME % there": regions.max(axis=1).round(3),
        }
    )
    return table.sort_values("NME %", ascending=False, kind="stable")


def build_cumulative_table(nme: np.ndarray) -> pandas.DataFrame:
    """The share of faces, in percent, whose NME (n,) is at most so much: from 0 to 20 %, or to all faces if they are better."""
    limits = np.linspace(0, min(20, nme.max()), CURVE_STEPS)
    share = 100 * np.searchsorted(np.sort(nme), limits, side="right") / len(nme)
    return pandas.DataFrame({"NME %": limits, "faces %": share})


def summarise(tracker: Tracker, points_px: np.ndarray, faces: Faces, **more: float) -> None:
    """The figures that runs are sorted by; points_px (n, k, 2) are the OOF predictions of these faces."""
    if tracker.running:
        oof = {f"oof_{key}": value for key, value in compute_scores(points_px, faces).items()}
        regions = {f"region/{name}": value for name, value in region_nme(points_px, faces).items()}
        tracker.summary({**oof, "faces": len(faces), **regions, **more})


def log_model(tracker: Tracker, places: Places, fold: FoldFolder, figures: dict, *, used: bool = False) -> None:
    """The model that a fold ended with, and the config and the split that it was trained with, as what the fold made or, `used`,
    as what something is made from; not copied, because it does not change any more."""
    if tracker.running:
        run = RunFolder(fold.path.parent)
        name = f"{run.path.relative_to(places.runs).as_posix()}-{fold.path.name}"  # parts have folders of their own
        metadata = {"checkpoint": places.relative(fold.checkpoint), "sha256": file_sha256(fold.checkpoint), **figures}
        tracker.artifact(Artifact(name, "model", [fold.checkpoint, run.config_file, run.split_file], metadata), used=used)


def log_submission(tracker: Tracker, csv: Path, record: Provenance, *, best: bool = False, used: bool = False) -> None:
    """A competition file with its record, as a version of one artifact, named as its experiment and, where it is the best one so
    far, `best`; in the metadata the models that it was made from."""
    models = [
        {"checkpoint": fold.checkpoint, "sha256": fold.sha256, "weight": experiment.weight}
        for experiment in record.experiments
        for fold in experiment.folds
    ]
    metadata = {"sha256": record.sha256, "faces": record.faces, "oof": record.oof.model_dump(), "made_from": models}
    aliases = [csv.stem, *(["best"] if best else [])]
    tracker.artifact(Artifact("competition-file", "submission", [csv, record_path(csv)], metadata, aliases), used=used)
