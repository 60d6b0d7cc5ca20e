"""Which predicted points cannot be right for their faces, and what is wrong with them.

A face is in one finding at most: as its picture's twin with the other's points, as one in another frame, or else under the
first rule of plausibility that it breaks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldmark.core.config import CropConfig
from foldmark.core.faces import Faces
from foldmark.core.markup import Markup
from foldmark.data.twins import find_twin_pairs, read_picture_sizes
from foldmark.submission.frames import USUAL_SPREAD, Frame, list_frames, split_wrong_twins

# Limits of a face against its box, in units of the box's longer side. The truth of all 4,416 training faces lies within the
# bounds in brackets; the limits leave room for weak models, not for wrong axes, frames or boxes.
FARTHEST_CENTRE = 0.5  # of the mean point from the box centre (0.002 to 0.265; on average 0.003 left, 0.054 below)
SPREAD = (0.12, 0.8)  # root mean square distance of the points from their mean (0.266 to 0.482)
FARTHEST_POINT = 1.5  # of any point from the box centre (the face's farthest: 0.445 to 0.897)
LEAST_UPRIGHT = 0.15  # chin below the brows' mean (0.575 to 1.196)
LEAST_EYES = -0.1  # right outer eye corner right of the left one (0.333 to 0.805)

OTHER_FRAME = "are they in pixels of the original picture, x before y, with the box their crop was cut with?"
MIRRORING = "mirror a twin's points with x' = width - 1 - x and swap the left with the right points."


@dataclass(frozen=True)
class FaceFinding:
    """One class of defect of some faces: rows (m,) of the test list, the defect's name, what is wrong, and the fix."""

    rows: np.ndarray
    defect: str
    problem: str
    fix: str


@dataclass(frozen=True)
class Shapes:
    """How n faces lie against their boxes, each (n,), in units of the box's longer side."""

    off: np.ndarray  # of the mean point from the box centre
    farthest: np.ndarray  # point from the box centre
    spread: np.ndarray  # root mean square distance of the points from their mean
    upright: np.ndarray  # chin below the brows
    eyes: np.ndarray  # right outer eye corner right of the left one

    @property
    def usual(self) -> np.ndarray:
        """Which faces (n,) lie in their boxes as true ones do: the bounds of the training faces, a little widened."""
        in_place = (self.off <= 0.28) & (self.spread >= 0.25) & (self.spread <= 0.5)
        return in_place & (self.upright >= 0.5) & (self.eyes >= 0.3)


@dataclass(frozen=True)
class Rule:
    """A rule of plausibility: which faces (n,) break it, the defect's name, what is wrong, with the value measured, the fix."""

    broken: np.ndarray
    defect: str
    problem: str
    fix: str
    measured: np.ndarray


def find_implausible(points_px: np.ndarray, faces: Faces, crop: CropConfig) -> list[FaceFinding]:
    """What is wrong with predictions (n, k, 2) for these faces. Faces with a value that is not finite are not judged.

    crop: how the models' crops were cut, for points that were left in crop pixels.
    """
    sizes_px = read_picture_sizes(faces)
    rules = _rules(_shapes(points_px, faces))
    finite = np.isfinite(points_px).all(axis=(1, 2))
    unexplained = np.logical_or.reduce([rule.broken for rule in rules]) & finite
    fitting = _fitting_frames(points_px, faces, sizes_px, crop) if unexplained.any() else []
    twins: list[FaceFinding] = []
    findings = _explain_file(_shapes(points_px, faces).usual.sum(), fitting, unexplained)
    # In a file whose points are in another frame, twins say nothing.
    if not findings:
        twins = _explain_twins(points_px, faces, sizes_px, unexplained)
        findings = list(_explain_faces(fitting, unexplained))
    for rule in rules:
        rows = np.flatnonzero(rule.broken & unexplained)
        if len(rows):
            findings.append(FaceFinding(rows, rule.defect, rule.problem.format(rule.measured[rows[0]]), rule.fix))
            unexplained[rows] = False
    return findings + twins


def find_not_finite(points_px: np.ndarray) -> list[FaceFinding]:
    """The finding that some predictions (n, k, 2) are not finite, if they are not."""
    rows = np.flatnonzero(~np.isfinite(points_px).all(axis=(1, 2)))
    return [FaceFinding(rows, "non-finite", "a value is not finite", "look at the training curve.")] if len(rows) else []


def _shapes(points_px: np.ndarray, faces: Faces) -> Shapes:
    boxes_px = faces.boxes_px
    sides = boxes_px[:, 2:].max(axis=1)
    brows, chin, (left, right) = _landmarks(faces.markup)
    # Values may be absurd here, and their squares infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        points = (points_px.astype(np.float64) - (boxes_px[:, :2] + boxes_px[:, 2:] / 2)[:, None]) / sides[:, None, None]
        mean = points.mean(axis=1)
        return Shapes(
            off=np.linalg.norm(mean, axis=1),
            farthest=np.linalg.norm(points, axis=2).max(axis=1),
            spread=np.sqrt(np.square(points - mean[:, None]).sum(axis=2).mean(axis=1)),
            upright=points[:, chin, 1] - points[:, brows, 1].mean(axis=1),
            eyes=points[:, right, 0] - points[:, left, 0],
        )


def _landmarks(markup: Markup) -> tuple[list[int], int, tuple[int, int]]:
    """The points of the brows, the chin, which is the middle of the jaw, and the outer eye corners."""
    jaw = markup.regions["jaw"]
    if markup.eyes is None:
        raise ValueError(f"{markup.name}: has no eye corners, so a face cannot be judged")
    return markup.regions["left brow"] + markup.regions["right brow"], jaw[len(jaw) // 2], markup.eyes


def _rules(shapes: Shapes) -> list[Rule]:
    off, farthest, spread, upright, eyes = shapes.off, shapes.farthest, shapes.spread, shapes.upright, shapes.eyes
    middle = "the middle of the points lies {:.2g} box sides from the middle of the box"
    farthest_point = "a point lies {:.2g} box sides from the middle of the box"
    crowded = "the points crowd together, {:.2g} box sides about their middle"
    scattered = "the points scatter, {:.2g} box sides about their middle"
    flip = "was a flip undone without the left/right swap?"
    # A NaN passes no comparison, so each line negates what is right.
    return [
        Rule(~(off <= FARTHEST_CENTRE), "off the box", middle, OTHER_FRAME, off),
        Rule(~(farthest <= FARTHEST_POINT), "off the box", farthest_point, OTHER_FRAME, farthest),
        Rule(~(spread >= SPREAD[0]), "size", crowded, OTHER_FRAME, spread),
        Rule(~(spread <= SPREAD[1]), "size", scattered, OTHER_FRAME, spread),
        Rule(~(upright >= LEAST_UPRIGHT), "not upright", "the chin is not below the brows", "are x and y swapped?", upright),
        Rule(~(eyes >= LEAST_EYES), "left and right", "the eyes stand the wrong way round", flip, eyes),
    ]


Fitting = list[tuple[Frame, np.ndarray]]


def _fitting_frames(points_px: np.ndarray, faces: Faces, sizes_px: np.ndarray, crop: CropConfig) -> Fitting:
    """The frames that the points could be in, each with the faces (n,) that it would put into their boxes as true ones are;
    of two that explain as much, first the one in which the faces have their usual size."""
    fitting = []
    for frame in list_frames(points_px, faces, sizes_px, crop):
        shapes = _shapes(frame.points_px, faces)
        if shapes.usual.any():
            # Rounded, so that frames of one size stay in their order.
            unusual = round(float(np.abs(shapes.spread[shapes.usual] - USUAL_SPREAD).mean()), 3)
            fitting.append((unusual, frame, shapes.usual))
    return [(frame, fits) for _, frame, fits in sorted(fitting, key=lambda candidate: candidate[0])]


# The next three remove the faces that they explain from `unexplained` (n,).


def _explain_file(usual: int, fitting: Fitting, unexplained: np.ndarray) -> list[FaceFinding]:
    """The finding that the whole file is in another frame, if more of its faces are usual there than the `usual` ones now."""

    def explains(fits: np.ndarray) -> bool:
        return fits.sum() > usual and 2 * (fits & unexplained).sum() >= unexplained.sum()

    for single in (True, False):
        candidates = [(frame, fits) for frame, fits in fitting if frame.single == single and explains(fits)]
        if candidates:
            frame, fits = max(candidates, key=lambda candidate: candidate[1].sum())
            unexplained[fits] = False
            return [_in_frame(np.flatnonzero(fits), frame)]
    return []


def _explain_faces(fitting: Fitting, unexplained: np.ndarray) -> Iterator[FaceFinding]:
    """In which other frame implausible faces would fit. A frame counts if it explains at least half of those left, so that
    chance does not."""
    fitting = [(frame, fits) for frame, fits in fitting if frame.single]
    while fitting and unexplained.any():
        frame, fits = max(fitting, key=lambda candidate: (candidate[1] & unexplained).sum())
        rows = np.flatnonzero(fits & unexplained)
        if 2 * len(rows) < unexplained.sum():
            return
        unexplained[rows] = False
        yield _in_frame(rows, frame)


def _explain_twins(points_px: np.ndarray, faces: Faces, sizes_px: np.ndarray, unexplained: np.ndarray) -> list[FaceFinding]:
    """Which mirror twins' points were not, or only half, mirrored."""
    findings, implausible = [], unexplained.copy()
    pairs = find_twin_pairs(faces)
    # Where both are implausible, their frame or their model is wrong, not their mirroring.
    pairs = pairs[~implausible[pairs].all(axis=1)]
    for problem, wrong in split_wrong_twins(points_px, faces, sizes_px, pairs):
        # The implausible one is to blame; of two plausible ones, the twin.
        wrong = np.where(implausible[wrong[:, :1]], wrong[:, ::-1], wrong)
        others, blamed = wrong[np.argsort(wrong[:, 1])].T
        unexplained[blamed] = False
        findings.append(FaceFinding(blamed, "mirror twins", f"the points are {faces.pictures[others[0]]}'s {problem}", MIRRORING))
    return findings


def _in_frame(rows: np.ndarray, frame: Frame) -> FaceFinding:
    return FaceFinding(rows, frame.defect, f"{frame.problem}: with that undone they fit the box", frame.fix)
