"""What an experiment or a blend has reached, read from its run folders for the report. Predicts nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldmark.commands.pipeline import SUBMISSIONS
from foldmark.core.faces import Faces
from foldmark.core.metrics import face_nme
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import read_experiment_oof, require_finished
from foldmark.ensemble.oof import Blend, blend_oof
from foldmark.runs.run import RUNS, Run, finished_folds, open_run, stored_config
from foldmark.submission.format import record_path


@dataclass(frozen=True)
class Results:
    """An experiment, or the several that a blend has in `runs`, with its out-of-fold (OOF) predictions.

    faces: the n held-out faces; rows (n,) of the training faces; folds (n,) the fold of each; points_px (n, k, 2);
    spread_px (n, k); nme (n,) in percent and mae_px (n,) of each face. blend: None for a single experiment.
    """

    name: str
    runs: list[Run]
    data: Data
    faces: Faces
    rows: np.ndarray
    folds: np.ndarray
    points_px: np.ndarray
    spread_px: np.ndarray
    nme: np.ndarray
    mae_px: np.ndarray
    blend: Blend | None

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def csv(self) -> Path:
        return SUBMISSIONS / f"{self.name}.csv"

    @property
    def record(self) -> Path:
        return record_path(self.csv)

    @property
    def first_fold(self) -> int:
        return finished_folds(self.runs[0].folder)[0]


def read_results(name: str, members: list[str], data: Data, overrides: list[str]) -> Results:
    """The results of these run folders together. Raises UserError where no fold is finished, or where they are of other data
    or cannot be blended."""
    folders = [RUNS / member for member in members]
    for folder in folders:
        require_finished(folder)
    configs = [stored_config(folder, overrides) for folder in folders]
    runs = [open_run(member, config, data) for member, config in zip(members, configs, strict=True)]
    if len(members) > 1:
        oof = blend_oof(folders, configs, data.train)
        blend, points_px = oof.blend, oof.blend.oof_px
    else:
        oof = read_experiment_oof(folders[0])
        blend, points_px = None, oof.points_px
    faces = runs[0].faces.take(oof.rows)
    errors_px = np.abs(points_px - faces.points_px).mean(axis=(1, 2))
    nme = face_nme(points_px, faces)
    return Results(name, runs, data, faces, oof.rows, oof.folds, points_px, oof.spread_px, nme, errors_px, blend)
