"""What an ensemble needs beside its nets: the blend's weights and the calibration of its uncertainty.

Both are fitted on out-of-fold predictions and their truth, and kept as `runs/<name>/ensemble.json`, so that predicting needs
no data set: `train` writes it for its experiment, `csv` for a blend.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, read_record, write_text
from foldmark.data.folds import read_split
from foldmark.data.sets import find_data
from foldmark.ensemble.calibration import Calibration, calibrate
from foldmark.ensemble.ensemble import joint_spread, read_experiment_oof, require_finished
from foldmark.ensemble.oof import blend_oof, weighted
from foldmark.runs.experiment import CACHE
from foldmark.runs.run import finished_folds, read_summary, stored_config, trained_on_synthetic
from foldmark.synthetic.sets import make_synthetic_data

FILE = "ensemble.json"


class FittedMember(BaseModel):
    """An experiment's name and weight, and a digest of the figures of the folds that were finished when it was fitted."""

    run: str
    weight: float = Field(ge=0, le=1)
    folds: str


class FittedCalibration(BaseModel):
    """`uncertainty.Calibration` as plain numbers."""

    model_config = ConfigDict(allow_inf_nan=False)

    spread: list[float] = Field(min_length=1)
    variance: list[float] = Field(min_length=1)


class EnsembleFit(BaseModel):
    """The members with their weights, and the calibration of what they give together."""

    members: list[FittedMember] = Field(min_length=1)
    calibration: FittedCalibration

    def weights(self, folders: list[Path]) -> list[float]:
        """The weights of these run folders, for which it holds."""
        named = {member.run: member.weight for member in self.members}
        return [named[folder.name] for folder in folders] if len(folders) > 1 else [1.0]

    @property
    def curve(self) -> Calibration:
        return Calibration(np.array(self.calibration.spread), np.array(self.calibration.variance))

    def holds_for(self, folders: list[Path]) -> bool:
        """Whether it was fitted for these run folders as they are now."""
        if len(folders) == len(self.members) == 1:
            # A run folder may be renamed and copied.
            return self.members[0].folds == _folds(folders[0])
        return {member.run: member.folds for member in self.members} == {folder.name: _folds(folder) for folder in folders}


def fit_ensemble(path: Path, folders: list[Path], weights: np.ndarray, faces: Faces) -> EnsembleFit:
    """Calibrate the blend (m,) of these run folders on the training faces, and write it down at `path`.

    Without mirror twins, which a photo of one's own has not. The few weights were fitted on the same predictions, which
    hundreds of thousands of points forgive.
    """
    parts = [read_experiment_oof(folder) for folder in folders]
    points_px = np.stack([part.points_px for part in parts])
    spread_px = joint_spread(points_px, np.stack([np.square(part.spread_px) for part in parts]), weights)
    curve = calibrate(spread_px, weighted(points_px, weights), faces.take(parts[0].rows))
    fit = EnsembleFit(
        members=[
            FittedMember(run=folder.name, weight=weight, folds=_folds(folder))
            for folder, weight in zip(folders, weights.tolist(), strict=True)
        ],
        calibration=FittedCalibration(spread=curve.spread.tolist(), variance=curve.variance.tolist()),
    )
    write_text(path, fit.model_dump_json(indent=1) + "\n")
    return fit


def read_fit(path: Path) -> EnsembleFit:
    """Raises UserError for a file that cannot be read or is damaged."""
    return read_record(path, EnsembleFit, "remove it and run make csv")


def fitted(folders: list[Path], data_root: Path | None) -> EnsembleFit:
    """What was fitted for the blend of these run folders, or fitted now on the data set below `data_root`.

    Raises UserError if it is not there and no data set is given.
    """
    for folder in folders:
        require_finished(folder)
    beside = folders if len(folders) == 1 else sorted(path.parent for path in folders[0].parent.glob(f"*/{FILE}"))
    for path in (folder / FILE for folder in beside):
        if path.is_file():
            fit = read_fit(path)
            if fit.holds_for(folders):
                return fit
    names = ", ".join(map(str, folders))
    faces = _training_faces(folders[0], data_root)
    if faces is None:
        raise UserError(
            f"{names}: no {FILE} holds for the folds that are finished, so nothing says how certain the points are; run make csv "
            "with the same settings where the data set is, which writes it."
        )
    for folder in folders:
        read_split(folder / "split.csv", faces)
    weights = blend_oof(folders, [stored_config(folder) for folder in folders], faces).blend.weights
    name = "+".join(folder.name for folder in folders)
    return fit_ensemble(folders[0].parent / name / FILE, folders, weights, faces)


def _training_faces(folder: Path, data_root: Path | None) -> Faces | None:
    if data_root is None:
        return None
    config, synthetic = stored_config(folder), trained_on_synthetic(folder)
    data = find_data(data_root, config.data.set)
    if data is None or data.synthetic != synthetic:
        if not synthetic:
            return None
        data = make_synthetic_data(config.data.set, CACHE)
    return data.train if config.data.points is None else data.train.pick_points(config.data.points)


def _folds(folder: Path) -> str:
    return digest([[fold, read_summary(folder / f"fold{fold}")] for fold in finished_folds(folder)])
