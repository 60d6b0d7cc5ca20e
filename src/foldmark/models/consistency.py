"""Shift consistency: how still the points stand on the face when the crop moves a few pixels (Zhang 2019)."""

import numpy as np
import torch
from torch import nn

from foldmark.core import geometry
from foldmark.models.inference import look
from foldmark.runs.run import Run

SHIFTS = range(1, 9)


def shift_consistency(model: nn.Module, run: Run, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Percent of the outer-eye distance that a point moves on the face (len(rows),): the mean of
    ||f(crop moved by d) - d - f(crop)|| over moves d of 1 to 8 crop pixels along x and along y, seen once, without
    re-cutting or flipping."""
    size = run.config.crop.size
    crops = [run.store[row] for row in rows]
    store_to_px = geometry.invert(run.store.px_to_store[rows])

    def points_px(move: tuple[int, int]) -> np.ndarray:
        affine = geometry.compose(geometry.similarity(size, size, shift=move), geometry.centre_affine(run.store.size, size))
        affines = np.repeat(affine[None], len(rows), axis=0)
        return geometry.apply(store_to_px, look(model, crops, affines, size, run.faces.markup, device)[0])

    still = points_px((0, 0))
    moves = [move for d in SHIFTS for move in ((d, 0), (0, d))]
    walked = sum(np.linalg.norm(points_px(move) - still, axis=2).mean(axis=1) for move in moves) / len(moves)
    return 100 * walked / run.faces.eye_distance_px[rows]
