"""How far off a point may be: how much an ensemble's predictions disagree about it, calibrated on the errors of
out-of-fold (OOF) predictions."""

from dataclasses import dataclass

import numpy as np
import pandas

from foldmark.core.faces import Faces

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """From spread to variance, both relative to the longer side of the box: a rising curve through the points spread (m,),
    variance (m,), straight between them and level beyond."""

    spread: np.ndarray
    variance: np.ndarray

    def std_px(self, spread_px: np.ndarray, faces: Faces) -> np.ndarray:
        """The standard deviation (n, k) of each coordinate of a point in original pixels, from spread_px (n, k)."""
        return self.std_for_sides(spread_px, box_sides(faces))

    def std_for_sides(self, spread_px: np.ndarray, sides_px: np.ndarray) -> np.ndarray:
        """The same, for boxes whose longer sides (n, 1) are these."""
        return np.sqrt(np.interp(spread_px / sides_px, self.spread, self.variance)) * sides_px


def calibrate(spread_px: np.ndarray, points_px: np.ndarray, faces: Faces) -> Calibration:
    """Fit on predictions (n, k, 2) whose truth is known: the mean squared error of a coordinate as a rising function of
    the spread (isotonic regression, Zadrozny and Elkan 2002)."""
    # Loaded only here: most of what imports this module does without scikit-learn.
    from sklearn.isotonic import IsotonicRegression

    sides = box_sides(faces)
    squared = np.square((points_px - faces.points_px) / sides[..., None]).mean(axis=2)
    curve = IsotonicRegression(increasing=True, out_of_bounds="clip").fit((spread_px / sides).ravel(), squared.ravel())
    return Calibration(curve.X_thresholds_, curve.y_thresholds_)


def measure_reliability(spread_px: np.ndarray, points_px: np.ndarray, faces: Faces, folds: np.ndarray) -> pandas.DataFrame:
    """The reliability diagram: points in 10 bins by the standard deviation that a calibration on the other folds predicts, with
    the root mean squares of `predicted` and `observed` errors in percent of the box."""
    sides = box_sides(faces)
    std = np.empty_like(spread_px)
    for fold in np.unique(folds):
        held_out = folds == fold
        rest = np.ones(len(folds), bool) if held_out.all() else ~held_out
        fitted = calibrate(spread_px[rest], points_px[rest], faces.take(rest))
        std[held_out] = fitted.std_px(spread_px[held_out], faces.take(held_out))
    squared = np.square((points_px - faces.points_px) / sides[..., None]).mean(axis=2).ravel()
    predicted = np.square(std / sides).ravel()
    bins = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return pandas.DataFrame(
        {
            "points": [len(part) for part in bins],
            "predicted": [100 * np.sqrt(predicted[part].mean()) for part in bins],
            "observed": [100 * np.sqrt(squared[part].mean()) for part in bins],
        }
    )


def rank_uncertain_faces(std_px: np.ndarray, faces: Faces) -> pandas.DataFrame:
    """All faces, the most uncertain first: picture, Ids in the competition file, and the mean standard deviation of its
    points and of its worst region in percent of the box."""
    share = 100 * std_px / box_sides(faces)
    names = list(faces.markup.regions)
    regions = np.stack([share[:, faces.markup.regions[name]].mean(axis=1) for name in names], axis=1)
    values = 2 * faces.markup.count
    table = pandas.DataFrame(
        {
            "picture": faces.pictures,
            "first_id": np.arange(len(faces)) * values,
            "std_percent_of_box": share.mean(axis=1).round(3),
            "worst_region": [names[index] for index in regions.argmax(axis=1)],
            "std_there": regions.max(axis=1).round(3),
        }
    )
    return table.sort_values("std_percent_of_box", ascending=False, kind="stable")


def box_sides(faces: Faces) -> np.ndarray:
    """The longer side (n, 1) of each box."""
    return faces.boxes_px[:, 2:].max(axis=1, keepdims=True)
