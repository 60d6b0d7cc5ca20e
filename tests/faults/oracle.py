"""OOF figures and competition files recomputed from scratch: from the models that were trained, known by their files' content,
and the truth that the tests keep. Knows nothing of the figures, bindings, records and caches that Foldmark keeps."""

import csv
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from foldmark.core.config import Config, check_config
from foldmark.core.markup import IBUG68
from foldmark.core.yaml_values import read_yaml
from foldmark.data.crops import cut_crops
from foldmark.data.decode import read_grey
from foldmark.models.inference import predict_points
from foldmark.models.net import PointRegressor
from foldmark.models.trained import load_model

EYES = [36, 45]  # outer corners


@dataclass(frozen=True)
class Face:
    """One line of a label file: picture, box (left, top, width, height), points (68, 2) or none, and the picture's width."""

    picture: str
    box: tuple[int, int, int, int]
    points_px: np.ndarray | None
    width: int

    @property
    def photo(self) -> str:
        return self.picture.replace("_mirror", "")


@dataclass(frozen=True)
class Trained:
    """A model, its config, and the photos that it has seen."""

    model: PointRegressor
    config: Config
    seen: frozenset[str]


@dataclass
class Oracle:
    """pictures: the folder that the faces' pictures are in. models: by the sha256 of their checkpoints."""

    pictures: Path
    models: dict[str, Trained] = field(default_factory=dict)
    predicted: dict[tuple, np.ndarray] = field(default_factory=dict)

    def remember(self, checkpoint: Path, seen: frozenset[str]) -> None:
        """Remember the model of a checkpoint that was just written, if it is new."""
        sha256 = digest(checkpoint)
        if sha256 not in self.models:
            config = read_config(checkpoint.parent.parent)
            self.models[sha256] = Trained(load_model(checkpoint, config, 68, torch.device("cpu")), config, seen)

    def predict(self, sha256: str, face: Face) -> np.ndarray:
        """The points (68, 2) that a remembered checkpoint's model predicts for a face."""
        key = sha256, face.picture, face.box
        if key not in self.predicted:
            trained = self.models[sha256]
            crops = cut_crops(read_grey(self.pictures / face.picture), np.array([face.box], float), trained.config.crop)
            self.predicted[key] = predict_points(trained.model, crops, np.arange(1), trained.config, IBUG68).points_px[0]
        return self.predicted[key]

    def out_of_fold(self, fold: Path, faces: list[Face]) -> tuple[list[Face], np.ndarray]:
        """The faces that a finished fold holds out, and the points (n, 68, 2) that its model predicts for them."""
        held_out = [face for face in faces if read_split(fold.parent)[face.picture] == int(fold.name[4:])]
        sha256 = digest(fold / "last.pt")
        trained = self.models[sha256]
        assert not trained.seen & {face.photo for face in held_out}, f"{fold}: the model has seen what the split holds out"
        assert trained.config == read_config(fold.parent), f"{fold}: the model is of another config"
        return held_out, np.stack([self.predict(sha256, face) for face in held_out])

    def predict_list(self, checkpoints: list[str], test: list[Face]) -> np.ndarray:
        """The points (n, 68, 2) of a test list: the mean over these checkpoints, mirror twins joined."""
        return join_twins(np.mean([[self.predict(sha256, face) for face in test] for sha256 in checkpoints], axis=0), test)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_config(run: Path) -> Config:
    return check_config(read_yaml((run / "config.yaml").read_text()), "config.yaml")


def read_split(run: Path) -> dict[str, int]:
    with (run / "split.csv").open(newline="") as file:
        return {row["picture"]: int(row["fold"]) for row in csv.DictReader(file)}


def finished(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.glob("fold[0-9]/summary.json"))


def figures(points_px: np.ndarray, faces: list[Face]) -> tuple[float, float]:
    """MAE in pixels and NME in percent of predictions (n, 68, 2)."""
    truth_px = np.stack([face.points_px for face in faces])
    eyes = np.linalg.norm(truth_px[:, EYES[0]] - truth_px[:, EYES[1]], axis=1)
    nme = np.linalg.norm(points_px - truth_px, axis=2).mean(axis=1) / eyes
    return float(np.abs(points_px - truth_px).mean()), float(100 * nme.mean())


def join_twins(points_px: np.ndarray, faces: list[Face]) -> np.ndarray:
    """The mean of each face's points (n, 68, 2) and those of its mirror twin, mirrored back."""
    row_of = {face.picture: row for row, face in enumerate(faces)}
    joined = points_px.copy()
    for row, face in enumerate(faces):
        twin = face.picture.replace("_mirror", "") if "_mirror" in face.picture else face.picture.replace(".", "_mirror.")
        if twin in row_of:
            mirrored = points_px[row_of[twin]] * [-1, 1] + [face.width - 1, 0]
            joined[row] = (points_px[row] + mirrored[IBUG68.mirror]) / 2
    return joined


def nested_blend(points_px: np.ndarray, faces: list[Face], folds: np.ndarray) -> np.ndarray:
    """Two experiments' OOF points (2, n, 68, 2), each fold (n,) with the weight that is best on the other folds."""
    blended, weights = np.empty_like(points_px[0]), np.linspace(0, 1, 201)
    for fold in np.unique(folds):
        rest, held_out = np.flatnonzero(folds != fold), folds == fold
        others = [faces[row] for row in rest]
        nme = [figures(weight * points_px[0, rest] + (1 - weight) * points_px[1, rest], others)[1] for weight in weights]
        best = weights[int(np.argmin(nme))]
        best = 0 if best < 0.02 else 1 if best > 0.98 else best
        blended[held_out] = best * points_px[0, held_out] + (1 - best) * points_px[1, held_out]
    return blended
