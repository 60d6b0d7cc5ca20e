"""The files of an ensemble beside its models: the blend's weights and the calibration of its uncertainty.

Both are fitted on out-of-fold predictions and their truth, and kept as `runs/<name>/ensemble.json`, so that predicting needs no
data set: `train` writes it for its experiment, `csv` for a blend.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, lock_file, read_record, write_text
from foldmark.ensemble.blend import blend_oof, blend_predictions
from foldmark.ensemble.calibration import CUES, LIMITS, NO_LIMIT, SMALLEST, Calibration, calibrate
from foldmark.ensemble.oof import read_oof, require_same_split
from foldmark.runs.fold_folder import ALL_FACES, FoldFolder
from foldmark.runs.run_folder import RunFolder


class FittedMember(BaseModel):
    """An experiment's name and weight, and a digest of the figures of the folds that were finished when it was fitted."""

    run: str
    weight: float = Field(ge=0, le=1)
    folds: str


class FittedCalibration(BaseModel):
    """`calibration.Calibration` as plain numbers."""

    model_config = ConfigDict(allow_inf_nan=False)

    weights: list[float] = Field(min_length=CUES, max_length=CUES)
    offsets: list[float] = Field(min_length=1)
    limits: list[float] = Field(min_length=LIMITS, max_length=LIMITS)
    score: list[float] = Field(min_length=1)
    variance: list[float] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _read_earlier(cls, values: Any) -> Any:
        # Earlier versions kept a curve over the spread alone.
        if not (isinstance(values, dict) and set(values) == {"spread", "variance"}):
            return values
        try:
            score = np.log(np.maximum(values["spread"], SMALLEST)).tolist()
        except (TypeError, ValueError):
            return values
        weights, limits = [1.0, *[0.0] * (CUES - 1)], [NO_LIMIT] * LIMITS
        return {"weights": weights, "offsets": [0.0], "limits": limits, "score": score, "variance": values["variance"]}


class EnsembleFit(BaseModel):
    """The members with their weights, and the calibration of their joint spread."""

    members: list[FittedMember] = Field(min_length=1)
    calibration: FittedCalibration

    def weights(self, folders: Sequence[RunFolder]) -> list[float]:
        """The weights of these run folders, for which it holds."""
        named = {member.run: member.weight for member in self.members}
        return [named[folder.name] for folder in folders] if len(folders) > 1 else [1.0]

    def read_calibration(self) -> Calibration:
        return Calibration(**{name: np.array(values) for name, values in self.calibration.model_dump().items()})

    def holds_for(self, folders: Sequence[RunFolder]) -> bool:
        """Whether it was fitted for these run folders as they are now."""
        if len(folders) == len(self.members) == 1:
            # A run folder may be renamed and copied.
            return self.members[0].folds == digest_folds(folders[0])
        return {member.run: member.folds for member in self.members} == {folder.name: digest_folds(folder) for folder in folders}


def fit_ensemble(folders: Sequence[RunFolder], weights: np.ndarray, faces: Faces) -> EnsembleFit:
    """Calibrate the blend (m,) of these runs on the faces that they learn.

    Without mirror twins, which a photo of one's own does not have. The few weights were fitted on the same predictions, which
    does not matter beside hundreds of thousands of points.
    """
    parts = [read_oof(folder, faces) for folder in folders]
    require_same_split(folders, parts)
    fitted = calibrate(blend_predictions([part.prediction for part in parts], weights), parts[0].faces)
    return EnsembleFit(
        members=[
            FittedMember(run=folder.name, weight=weight, folds=digest_folds(folder))
            for folder, weight in zip(folders, weights.tolist(), strict=True)
        ],
        calibration=FittedCalibration(**{name: values.tolist() for name, values in vars(fitted).items()}),
    )


def write_fit(path: Path, folders: Sequence[RunFolder], weights: np.ndarray, faces: Faces) -> None:
    """Fit the blend (m,) of these runs and keep it. One process after the other, so that the last one has seen all folds."""
    with lock_file(path):
        write_text(path, fit_ensemble(folders, weights, faces).model_dump_json(indent=1) + "\n")


def copy_fit(source: RunFolder, folder: RunFolder) -> None:
    """Write the calibration of a run as that of another one, whose net learned all faces in the same way: it has no OOF points to
    be calibrated on."""
    member = FittedMember(run=folder.name, weight=1, folds=digest_folds(folder))
    fit = EnsembleFit(members=[member], calibration=read_fit(source.ensemble_file).calibration)
    write_text(folder.ensemble_file, fit.model_dump_json(indent=1) + "\n")


def read_fit(path: Path) -> EnsembleFit:
    """Raises UserError for a file that cannot be read or is damaged."""
    return read_record(path, EnsembleFit, "remove it and run make csv")


def find_nets(folder: RunFolder) -> list[FoldFolder]:
    """The nets of a run that predict together: of its finished folds or, where it has no folds, the one that learned all faces.
    Raises UserError where there is neither."""
    alone = folder.fold(ALL_FACES)
    return [alone] if alone.finished and not folder.finished else folder.require_finished()


def find_fit(folders: Sequence[RunFolder], read_faces: Callable[[], Faces | None]) -> EnsembleFit:
    """The kept fit of the blend of these runs or, where none holds for their finished folds, one made now on the faces that they
    learn, read only then. Writes nothing. Raises UserError if there is neither."""
    learned_all = [folder for folder in folders if not find_nets(folder)[0].holds_out]
    for path in _kept_fits(folders):
        fit = read_fit(path)
        if fit.holds_for(folders):
            return fit
    for folder in learned_all:
        problem = (
            "cannot be blended with others" if len(folders) > 1 else "has no ensemble.json of its own; run make distill again"
        )
        raise UserError(f"{folder.path}: its net learned all faces, so it {problem}.")
    faces = read_faces()
    if faces is None:
        raise UserError(
            f"{', '.join(str(folder.path) for folder in folders)}: no ensemble.json holds for the finished folds, so the "
            "uncertainty of the points is not known; run make csv with the same settings where the data set is, which writes it."
        )
    _, blend = blend_oof(folders, [folder.read_config() for folder in folders], faces)
    return fit_ensemble(folders, blend.weights, faces)


def _kept_fits(folders: Sequence[RunFolder]) -> list[Path]:
    """The fits that may be of these runs: that of a single one is in its folder, that of a blend in a folder beside them."""
    beside = list(folders)
    if len(folders) > 1:
        beside = [RunFolder(path) for path in sorted(folders[0].path.parent.iterdir())]
    return [folder.ensemble_file for folder in beside if folder.ensemble_file.is_file()]


def digest_folds(folder: RunFolder) -> str:
    """Of the nets of a run, by the figures of their folds."""
    return digest([[fold.number, fold.summary] for fold in find_nets(folder)])
