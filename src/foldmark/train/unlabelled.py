"""Faces without labels that a net learns beside those of its run, with the points of an ensemble for truth.

`make distill` keeps them in cache/ as two files: <name>.npz, and <name>.u8 with the crops of the run's faces and, after these,
theirs.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, read_bytes
from foldmark.data.crops import CropStore

LARGEST = 4096 * MEGABYTE
ARRAYS = ("pictures", "boxes_px", "points_px", "trust", "px_to_store", "size")


@dataclass(frozen=True)
class UnlabelledFaces:
    """m faces: their pictures, boxes_px (m, 4), the ensemble's points_px (m, k, 2) and how far these are trusted (m,), from 0 to
    1: the weight of a face in the loss. store: the crops of the run's faces and of these."""

    store: CropStore
    pictures: list[str]
    boxes_px: np.ndarray
    points_px: np.ndarray
    trust: np.ndarray


def find_pixels(file: Path) -> Path:
    """The file of the crops beside that of the points."""
    return file.with_suffix(".u8")


def read_unlabelled(file: Path, points: int) -> UnlabelledFaces:
    """Raises UserError for files that are missing or damaged, or of faces with another number of points."""
    pixels = find_pixels(file)
    try:
        with np.load(BytesIO(read_bytes(file, LARGEST))) as stored:
            content = {name: stored[name] for name in ARRAYS}
        width, height = content["size"].tolist()
        px_to_store, count = content["px_to_store"], len(content["pictures"])
        if content["points_px"].shape != (count, points, 2) or not np.isfinite(content["points_px"]).all():
            raise ValueError("not the points of these faces")
        if pixels.stat().st_size != len(px_to_store) * width * height:
            raise ValueError(f"{pixels.name} has another size")
    except Exception as error:  # a damaged archive raises nearly anything
        raise UserError(
            f"{file}: the unlabelled faces cannot be read ({error}); make distill with the same UNLABELLED writes them again."
        ) from None
    store = CropStore(pixels, (width, height), px_to_store)
    return UnlabelledFaces(store, content["pictures"].tolist(), content["boxes_px"], content["points_px"], content["trust"])
