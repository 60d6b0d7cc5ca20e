"""The two figures that count: the competition's MAE in original pixels, and the NME in percent."""

import numpy as np

from foldmark.markup import Markup


def mae_px(points_px: np.ndarray, truth_px: np.ndarray) -> float:
    """The competition's metric: mean |predicted - true| over all coordinates, in original pixels."""
    return float(np.abs(points_px - truth_px).mean())


def face_nme(points_px: np.ndarray, truth_px: np.ndarray, markup: Markup) -> np.ndarray:
    """Normalised mean error of each face, in percent (n,): the mean distance of a point from its truth over the distance
    of the outer eye corners (Sagonas et al. 2013). Points are (n, k, 2) in original pixels."""
    left, right = markup.eyes
    eyes = np.linalg.norm(truth_px[:, left] - truth_px[:, right], axis=1)
    return 100 * np.linalg.norm(points_px - truth_px, axis=2).mean(axis=1) / eyes


def scores(points_px: np.ndarray, truth_px: np.ndarray, markup: Markup) -> dict[str, float]:
    return {"mae_px": mae_px(points_px, truth_px), "nme": float(face_nme(points_px, truth_px, markup).mean())}
