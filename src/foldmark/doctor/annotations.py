"""Annotations that cannot be right: points that form no face, lines that cross, mirror twins that break the flip rule."""

from dataclasses import dataclass

import numpy as np

from foldmark.core import geometry
from foldmark.core.faces import Faces
from foldmark.core.markup import Markup

# A face is no face when it lies further from the best-fitting mean face than the set's median by so many median absolute
# deviations (scaled to a normal distribution's standard deviation).
DEVIATIONS = 5
# ... and further than any of the 4,416 faces of the 300-W subset does, all of which look right: NME 19.9 %, farthest point
# 61 % of the eye distance. Points out of order, unswapped after a flip or with x and y swapped reach 50 %.
LEAST_NME, LEAST_FARTHEST = 20.0, 61.0


@dataclass(frozen=True)
class Misfit:
    """How each of n faces lies on the mean face, after the similarity that fits it best.

    nme: (n,) mean distance of the points, in percent of the mean face's eye distance; farthest: (n,) that of the farthest
    point. turn: (n,) degrees from upright. limits: of nme and of farthest, as `DEVIATIONS` says.
    """

    nme: np.ndarray
    farthest: np.ndarray
    turn: np.ndarray
    limits: tuple[float, float]

    @property
    def wrong(self) -> np.ndarray:
        """(n,) bool: points that form no upright face."""
        return (self.nme > self.limits[0]) | (self.farthest > self.limits[1]) | (np.abs(self.turn) > 90)


def measure_misfit(faces: Faces) -> Misfit:
    """How far each face is from the mean face of the set (Procrustes, Gower 1975; the median of the fitted faces, so that wrong
    ones do not draw it towards them). Needs a markup with eyes."""
    left, right = faces.markup.require_eyes()
    mean = _upright_start(faces)
    for _ in range(3):
        fitted = geometry.apply(geometry.align(faces.points_px, mean), faces.points_px)
        mean = np.median(fitted, axis=0)
        # The mean face is its own mirror image; this also takes the turn out of it.
        mean -= mean.mean(axis=0)
        mean = (mean + mean[faces.markup.mirror] * [-1, 1]) / 2
        mean /= np.linalg.norm(mean[left] - mean[right])
    affines = geometry.align(faces.points_px, mean)
    distances = 100 * np.linalg.norm(geometry.apply(affines, faces.points_px) - mean, axis=2)
    nme, farthest = distances.mean(axis=1), distances.max(axis=1)
    turn = np.degrees(np.arctan2(affines[:, 1, 0], affines[:, 0, 0]))
    return Misfit(nme, farthest, turn, (max(_robust_limit(nme), LEAST_NME), max(_robust_limit(farthest), LEAST_FARTHEST)))


def find_crossed_lines(faces: Faces) -> dict[int, str]:
    """Faces in which a line of the markup (jaw, brow, eyelids ...) crosses itself: row -> the name of the first region."""
    crossed: dict[int, str] = {}
    for line in faces.markup.lines:
        for row in np.flatnonzero(_crosses_itself(faces.points_px[:, line], closed=line[0] == line[-1])):
            crossed.setdefault(int(row), _region(faces.markup, line))
    return dict(sorted(crossed.items()))


def find_broken_twins(faces: Faces, pairs: np.ndarray, widths_px: np.ndarray) -> list[int]:
    """Of pairs (m, 2) of faces and their twins, the twins whose points are not the flipped, left-right swapped points of their
    original: off by more than 1 px and 2 % of the eye distance on average. widths_px: (n,) of the pictures, 0 where unknown."""
    broken = []
    for row, twin in pairs:
        if widths_px[row]:
            expected_px = geometry.apply(geometry.flip(widths_px[row]), faces.points_px[row][faces.markup.mirror])
            error_px = np.linalg.norm(expected_px - faces.points_px[twin], axis=1).mean()
            if error_px > 1 + 0.02 * faces.eye_distance_px[row]:
                broken.append(twin)
    return broken


def _upright_start(faces: Faces) -> np.ndarray:
    """The face whose proportions are the most usual, to start the mean from: a wrong one would spoil it."""
    centred = faces.points_px - faces.points_px.mean(axis=1, keepdims=True)
    shapes = centred / np.maximum(np.linalg.norm(centred, axis=(1, 2), keepdims=True), 1e-12)
    return np.median(shapes, axis=0)


def _robust_limit(values: np.ndarray) -> float:
    middle = np.median(values)
    return float(middle + DEVIATIONS * 1.4826 * np.median(np.abs(values - middle)))


def _crosses_itself(line: np.ndarray, closed: bool) -> np.ndarray:
    """Which of n polylines (n, k, 2) cross themselves; touching, as rounded points do, is no crossing."""
    crossed = np.zeros(len(line), bool)
    segments = line.shape[1] - 1
    for one in range(segments):
        for other in range(one + 2, segments):
            if closed and one == 0 and other == segments - 1:
                continue
            a, b, c, d = line[:, one], line[:, one + 1], line[:, other], line[:, other + 1]
            crossed |= (_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)
    return crossed


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Positive on one side of the line from start to end, negative on the other, 0 on it."""
    along, to = end - start, point - start
    return along[:, 0] * to[:, 1] - along[:, 1] * to[:, 0]


def _region(markup: Markup, line: list[int]) -> str:
    inside = (name for name, points in markup.regions.items() if set(line) <= set(points))
    return next(inside, f"line from point {line[0]}")
