"""What every predictor offers, with torch or without; and the faces of one picture, cut out of it for the models of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from foldmark.core.config import CropConfig
from foldmark.core.markup import Markup
from foldmark.data.crops import Crops, cut_crops
from foldmark.data.decode import grey_photo


@dataclass(frozen=True)
class CutFaces:
    """The faces of one picture, cut out: their crops for each member, and the longer sides (n, 1) of their boxes."""

    crops: list[Crops]
    sides_px: np.ndarray

    def __len__(self) -> int:
        return len(self.sides_px)


@dataclass(frozen=True)
class PredictedPoints:
    """Of the n faces of one picture: points_px (n, k, 2), std_px (n, k), as `Predictor.predict` gives them, and whether each is
    unlike the faces that the models learned (n,)."""

    points_px: np.ndarray
    std_px: np.ndarray
    unlike: np.ndarray


def cut_faces(image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike, configs: Sequence[CropConfig]) -> CutFaces:
    """Cut the faces in these boxes (n, 4) out of a picture, as each of these configs says. Raises ValueError, which says what is
    wrong, for an image or a box that cannot be used."""
    boxes_px = np.asarray(boxes, np.float64)
    boxes_px = boxes_px.reshape(-1, 4) if boxes_px.size == 0 else boxes_px
    if boxes_px.ndim != 2 or boxes_px.shape[1] != 4:
        raise ValueError(f"boxes are {boxes_px.shape}; they are (n, 4): left, top, width, height")
    if not np.isfinite(boxes_px).all() or (np.abs(boxes_px) > 1e6).any() or (boxes_px[:, 2:] <= 0).any():
        raise ValueError("a box has no area, or is no place in a picture")
    grey = grey_photo(image)
    return CutFaces(
        [cut_crops(grey, boxes_px, config) for config in configs], boxes_px[:, 2:].max(axis=1, keepdims=True, initial=0)
    )


class FacePredictor(Protocol):
    """What `foldmark.load` gives: see `ensemble.api.Predictor`."""

    @property
    def name(self) -> str: ...

    @property
    def markup(self) -> Markup: ...

    @property
    def synthetic_faces(self) -> bool: ...

    def predict(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> tuple[np.ndarray, np.ndarray]: ...

    def cut(self, image: np.ndarray | Image.Image | str | Path, boxes: ArrayLike) -> CutFaces: ...

    def predict_all(self, pictures: Sequence[CutFaces]) -> list[PredictedPoints]: ...
