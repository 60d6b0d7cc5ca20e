"""The results of an experiment or a blend, read from its run folders. Predicts nothing."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from foldmark.core.errors import UserError
from foldmark.core.files import read_text
from foldmark.core.metrics import compute_scores, mean_face_px
from foldmark.core.progress import Progress, no_progress
from foldmark.ensemble.blend import Blend, blend_oof
from foldmark.ensemble.oof import Oof, read_oof
from foldmark.runs.experiment import Experiment
from foldmark.runs.places import Places
from foldmark.runs.run import Run, open_run
from foldmark.runs.run_folder import RunFolder


def score_mean_face(run: Run, folds: Sequence[int]) -> dict[str, float]:
    """The scores of the mean training face placed in each box, on the held-out faces of these folds: the
    baseline from boxes alone, which a model has to beat."""
    rows = [run.held_out_rows(fold) for fold in folds]
    points_px = [
        mean_face_px(run.faces.take(run.training_rows(fold)), run.faces.take(held_out))
        for fold, held_out in zip(folds, rows, strict=True)
    ]
    return compute_scores(np.concatenate(points_px), run.faces.take(np.concatenate(rows)))


@dataclass(frozen=True)
class Results:
    """An experiment, or the several of a blend in `runs`, with its OOF predictions. blend: None for a single experiment."""

    experiment: Experiment
    places: Places
    runs: list[Run]
    oof: Oof
    blend: Blend | None

    @property
    def name(self) -> str:
        return self.experiment.name

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.places.run(self.name))

    @property
    def csv(self) -> Path:
        return self.places.csv(self.name)

    @property
    def first_fold(self) -> int:
        return self.runs[0].folder.finished[0].number


def read_results(experiment: Experiment, places: Places, progress: Progress = no_progress) -> Results:
    """The results of an experiment's run folders together. Raises UserError where no fold is finished, or where they are of other
    data or cannot be blended."""
    folders = experiment.folders(places)
    for folder in folders:
        folder.require_finished()
    runs = [
        open_run(places, name, folder.read_config(experiment.overrides), experiment.data, progress)
        for name, folder in zip(experiment.members, folders, strict=True)
    ]
    faces = runs[0].faces
    if len(runs) == 1:
        return Results(experiment, places, runs, read_oof(folders[0], faces), None)
    if any(run.faces.markup.count != faces.markup.count for run in runs):
        raise UserError(f"{experiment.name}: its experiments learned different points; they cannot be blended.")
    oof, blend = blend_oof(folders, [run.config for run in runs], faces)
    return Results(experiment, places, runs, oof, blend)


def read_table(path: Path, columns: Sequence[str]) -> pandas.DataFrame:
    """A CSV as text. Raises UserError where it cannot be read or lacks one of the columns."""
    try:
        table = pandas.read_csv(io.StringIO(read_text(path)), dtype=str).fillna("")
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read") from None
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise UserError(f"{path}: lacks the column {lacking[0]}")
    return table
