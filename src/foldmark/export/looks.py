"""How an exported net looks at a face: first as the box, or the aligner, says, then aligned to the mean face. Without torch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from foldmark.core import geometry
from foldmark.data.crops import Crops, CropStore, find_other_crop, warp
from foldmark.ensemble.face_cuts import PredictedPoints
from foldmark.export.facts import Facts

# Takes crops uint8 (n, 1, height, width); gives points_crop (n, k, 2), std_crop (n, k) and unlike uint8 (n,).
Net = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
# The same for the aligner, which gives points_crop alone.
Aligner = Callable[[np.ndarray], np.ndarray]
BATCH = 16


class Nets(NamedTuple):
    """What a file holds: the net and, where its run has one, the aligner, which finds where its crops lie."""

    net: Net
    aligner: Aligner | None = None


def predict_faces(nets: Nets, facts: Facts, store: CropStore | Crops, rows: np.ndarray) -> PredictedPoints:
    """The points, in the original pictures, of these rows (n,) of a store."""
    cuts = find_cuts(nets, facts, store, rows)
    points_crop, std_crop, unlike = look(nets.net, facts, store, rows, cuts)
    crop_to_px = geometry.invert(geometry.compose(cuts, store.px_to_store[rows]))
    std_px = std_crop * geometry.scale_of(crop_to_px)[:, None]
    return PredictedPoints(geometry.apply(crop_to_px, points_crop), std_px, unlike.astype(bool))


def find_cuts(nets: Nets, facts: Facts, store: CropStore | Crops, rows: np.ndarray) -> np.ndarray:
    """Store crop to crop (n, 2, 3) for the last look: each look before it says how the face lies. Only here is decided where a
    face is cut."""
    cuts = place_crops(nets.aligner, facts, store, rows)
    for _ in range(facts.looks - 1):
        points_crop, *_ = look(nets.net, facts, store, rows, cuts)
        points_store = geometry.apply(geometry.invert(cuts), points_crop)
        cuts = geometry.align(points_store, np.array(facts.mean_points_crop))
    return cuts


def place_crops(aligner: Aligner | None, facts: Facts, store: CropStore | Crops, rows: np.ndarray) -> np.ndarray:
    """Store crop to crop (n, 2, 3) for the first look: about the box, or as the aligner says."""
    if aligner is None or facts.aligner is None:
        return np.repeat(geometry.centre_affine(store.size, facts.crop.size)[None], len(rows), axis=0)
    cut, _ = find_other_crop(store.size, facts.crop, facts.aligner)
    parts = [np.empty((0, facts.markup.count, 2))]
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        parts.append(aligner(cut_looks(store, part, np.repeat(cut[None], len(part), axis=0), facts.aligner.size)))
    points_store = geometry.apply(geometry.invert(cut), np.concatenate(parts).astype(np.float64))
    return geometry.align(points_store, np.array(facts.mean_points_crop))


def look(
    net: Net, facts: Facts, store: CropStore | Crops, rows: np.ndarray, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """points_crop (n, k, 2), std_crop (n, k) and unlike (n,), float64, of these rows (n,) cut by affines (n, 2, 3)."""
    parts = [(np.empty((0, facts.markup.count, 2)), np.empty((0, facts.markup.count)), np.empty(0))]
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        parts.append(net(cut_looks(store, rows[part], cuts[part], facts.crop.size)))
    points_crop, std_crop, unlike = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True))
    return points_crop, std_crop, unlike


def cut_looks(store: CropStore | Crops, rows: np.ndarray, cuts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The crops uint8 (n, 1, height, width), of a size (width, height), that a net sees."""
    return np.stack([warp(store[row], cut, size) for row, cut in zip(rows, cuts, strict=True)])[:, None]
