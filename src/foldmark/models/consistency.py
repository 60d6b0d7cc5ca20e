"""Shift consistency: how still the points stand on the face when the crop moves a few pixels (Zhang 2019)."""

import numpy as np

from foldmark.core import geometry
from foldmark.models.inference import CropPredictor, place_crops
from foldmark.models.net import PointRegressor
from foldmark.runs.run import Run

SHIFTS = range(1, 9)


def measure_shift_consistency(model: PointRegressor, run: Run, rows: np.ndarray) -> np.ndarray:
    """Percent of the outer-eye distance that a point moves on the face (len(rows),): the mean of
    ||f(crop moved by d) - d - f(crop)|| over moves d of 1 to 8 crop pixels along x and along y, without re-cutting or
    flipping."""
    size = run.config.crop.size
    predictor = CropPredictor(model, run.store, run.config, run.faces.markup)
    store_to_px = geometry.invert(run.store.px_to_store[rows])

    cuts = place_crops(model, run.store, rows, run.config, run.faces.markup)

    def predict_px(move: tuple[int, int]) -> np.ndarray:
        affines = geometry.compose(geometry.similarity(size, size, shift=move), cuts)
        return geometry.apply(store_to_px, predictor.predict(rows, affines[None])[0])

    still_px = predict_px((0, 0))
    moves = [move for d in SHIFTS for move in ((d, 0), (0, d))]
    distance_px = sum(np.linalg.norm(predict_px(move) - still_px, axis=2).mean(axis=1) for move in moves) / len(moves)
    return 100 * distance_px / run.faces.eye_distance_px[rows]
