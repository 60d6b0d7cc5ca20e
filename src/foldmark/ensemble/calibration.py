"""How far off a point may be: a regression on what a prediction says about itself, calibrated on the errors of out-of-fold (OOF)
predictions."""

from dataclasses import dataclass

import numpy as np
import pandas

from foldmark.core.faces import Faces
from foldmark.core.metrics import face_nme
from foldmark.core.prediction import Prediction
from foldmark.ensemble.oof import Oof

BINS = 10
CUES, LIMITS = 4, 2  # see `list_cues` and `Calibration.limits`
SMALLEST = 1e-5  # of the box: what is smaller, or nothing, counts as this
USUAL = 99.5  # percent of the OOF faces; a face that is more uncertain than these is unlike what the models learned
WORST, LISTED = 0.05, 0.10  # the share of worst faces that is looked for, and of the list in which
NO_LIMIT = 1e9


@dataclass(frozen=True)
class Calibration:
    """From cues (see `list_cues`) to the variance of a coordinate, relative to the longer side of the box.

    A score, the sum of the cues by their weights (c,) and of each point's offset (k,), is the expected logarithm of the error. A
    rising curve through the points score (m,), variance (m,) makes it a variance, straight between them and level beyond. limits:
    (2,) of a face's mean spread and votes, as cues, beyond which a face is unlike those that the models learned.
    """

    weights: np.ndarray
    offsets: np.ndarray
    limits: np.ndarray
    score: np.ndarray
    variance: np.ndarray

    def std_px(self, prediction: Prediction, sides_px: np.ndarray) -> np.ndarray:
        """The standard deviation (n, k) of each coordinate of a point in original pixels, in boxes whose longer sides (n, 1) are
        these."""
        score = list_cues(prediction, sides_px) @ self.weights + self.offsets
        return np.sqrt(np.interp(score, self.score, self.variance)) * sides_px

    def find_unlike(self, prediction: Prediction, sides_px: np.ndarray) -> np.ndarray:
        """Whether each face (n,) is unlike those that the models learned: more uncertain than nearly all of the OOF faces."""
        return (list_face_cues(prediction, sides_px)[:, 0] - self.limits).max(axis=1) > 0


def list_cues(prediction: Prediction, sides_px: np.ndarray) -> np.ndarray:
    """What is known about the error of each point (n, k, 4): the logarithms, relative to the longer sides (n, 1) of the boxes, of
    its spread and of its votes', and of the means of both over the face."""
    own = _take_logarithm(np.stack([prediction.spread_px, prediction.votes_px], axis=2) / sides_px[..., None])
    return np.concatenate([own, np.broadcast_to(list_face_cues(prediction, sides_px), own.shape)], axis=2)


def list_face_cues(prediction: Prediction, sides_px: np.ndarray) -> np.ndarray:
    """The logarithms (n, 1, 2) of the mean spread and votes of each face, relative to the longer sides (n, 1) of the boxes."""
    means_px = np.stack([prediction.spread_px, prediction.votes_px], axis=2).mean(axis=1, keepdims=True)
    return _take_logarithm(means_px / sides_px[..., None])


def _take_logarithm(shares: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(shares, SMALLEST))


def calibrate(prediction: Prediction, faces: Faces) -> Calibration:
    """Fit on predictions whose truth is known: the logarithm of a point's error by linear regression on its cues, then the mean
    squared error of a coordinate as a rising function of that (isotonic regression, Zadrozny and Elkan 2002)."""
    # Loaded only here: most of what imports this module does without scikit-learn.
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LinearRegression

    sides = box_sides(faces)
    squared = _square_errors(prediction, faces)
    cues, error = list_cues(prediction, sides), _take_logarithm(np.sqrt(2 * squared))
    line = LinearRegression().fit(cues.reshape(-1, cues.shape[2]), (error - error.mean(axis=0)).ravel())
    offsets = error.mean(axis=0) + line.intercept_
    curve = IsotonicRegression(increasing=True, out_of_bounds="clip").fit((cues @ line.coef_ + offsets).ravel(), squared.ravel())
    face_cues = list_face_cues(prediction, sides)[:, 0]
    limits = np.where(np.ptp(face_cues, axis=0) > 0, np.percentile(face_cues, USUAL, axis=0), NO_LIMIT)
    return Calibration(line.coef_, offsets, limits, curve.X_thresholds_, curve.y_thresholds_)


def predict_held_out_std(oof: Oof) -> np.ndarray:
    """The standard deviation (n, k) in pixels of each OOF prediction, by a calibration on the other folds; on all where there is
    one fold."""
    sides, std_px = box_sides(oof.faces), np.empty_like(oof.prediction.spread_px)
    for fold in np.unique(oof.folds):
        held_out = oof.folds == fold
        rest = np.ones(len(oof), bool) if held_out.all() else ~held_out
        fitted = calibrate(oof.prediction.take(rest), oof.faces.take(rest))
        std_px[held_out] = fitted.std_px(oof.prediction.take(held_out), sides[held_out])
    return std_px


def measure_reliability(oof: Oof, std_px: np.ndarray) -> pandas.DataFrame:
    """The reliability diagram: points in 10 bins by their standard deviation (n, k), with the root mean squares of `predicted`
    and `observed` errors in percent of the box."""
    squared = _square_errors(oof.prediction, oof.faces).ravel()
    predicted = np.square(std_px / box_sides(oof.faces)).ravel()
    bins = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return pandas.DataFrame(
        {
            "points": [len(part) for part in bins],
            "predicted": [100 * np.sqrt(predicted[part].mean()) for part in bins],
            "observed": [100 * np.sqrt(squared[part].mean()) for part in bins],
        }
    )


def describe_list(oof: Oof, std_px: np.ndarray) -> str:
    """In a sentence, how well a list of the OOF faces by their standard deviations (n, k) finds those of the largest NME."""
    from scipy.stats import spearmanr  # slow to import

    listed, nme = share_of_eyes(std_px, oof.points_px, oof.faces).mean(axis=1), face_nme(oof.points_px, oof.faces)
    worst = np.argsort(-nme, kind="stable")[: max(1, round(WORST * len(nme)))]
    first = np.argsort(-listed, kind="stable")[: max(1, round(LISTED * len(nme)))]
    where = "the other folds" if len(np.unique(oof.folds)) > 1 else "the same faces, because one fold is finished, which flatters"
    found = 100 * np.isin(worst, first).mean()
    return (
        f"calibrated on {where}: a list by it has a rank correlation of {spearmanr(listed, nme).statistic:.2f} with the NME of "
        f"the out-of-fold faces, and {found:.0f} % of the worst {100 * WORST:.0f} % stand in its first {100 * LISTED:.0f} %"
    )


def rank_uncertain_faces(std_px: np.ndarray, unlike: np.ndarray, points_px: np.ndarray, faces: Faces) -> pandas.DataFrame:
    """All faces, the most uncertain first: picture, Ids in the competition file, the mean standard deviation of its points and
    of its worst region in percent of the predicted distance of the outer eye corners, which the NME is measured in, and whether
    it is unlike (n,) the faces that the models learned."""
    share = share_of_eyes(std_px, points_px, faces)
    names = list(faces.markup.regions)
    regions = np.stack([share[:, faces.markup.regions[name]].mean(axis=1) for name in names], axis=1)
    values = 2 * faces.markup.count
    table = pandas.DataFrame(
        {
            "picture": faces.pictures,
            "first_id": np.arange(len(faces)) * values,
            "std_percent": share.mean(axis=1).round(3),
            "worst_region": [names[index] for index in regions.argmax(axis=1)],
            "std_there": regions.max(axis=1).round(3),
            "unlike_training": np.where(unlike, "yes", ""),
        }
    )
    return table.sort_values("std_percent", ascending=False, kind="stable")


def share_of_eyes(std_px: np.ndarray, points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """Standard deviations (n, k) in percent of the predicted distance of the outer eye corners; for points without them, of the
    longer side of the box."""
    if faces.markup.eyes is None:
        return 100 * std_px / box_sides(faces)
    left, right = faces.markup.eyes
    distance_px = np.linalg.norm(points_px[:, left] - points_px[:, right], axis=1)[:, None]
    # Eye corners that nearly coincide are themselves a mistake, and put the face first.
    return 100 * std_px / np.maximum(distance_px, SMALLEST * box_sides(faces))


def _square_errors(prediction: Prediction, faces: Faces) -> np.ndarray:
    """The mean squared error (n, k) of a point's two coordinates, relative to the longer side of the box."""
    return np.square((prediction.points_px - faces.points_px) / box_sides(faces)[..., None]).mean(axis=2)


def box_sides(faces: Faces) -> np.ndarray:
    """The longer side (n, 1) of each box."""
    return faces.boxes_px[:, 2:].max(axis=1, keepdims=True)
