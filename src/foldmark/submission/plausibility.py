"""What can be wrong with the points of a competition file: one list of findings, for the refusal and for the report.

A face is found at most once: as its picture's twin with the other's points, as one in another frame, or else under the
first rule of plausibility that it breaks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldmark.core.config import CropConfig
from foldmark.core.faces import Faces
from foldmark.core.markup import IBUG68
from foldmark.data.twins import picture_sizes, twin_pairs
from foldmark.submission.frames import USUAL_SPREAD, Frame, frames, twin_steps

VALUES = 2 * IBUG68.count

# What a face may look like against its box, in units of the box's longer side. The truth of all 4,416 training faces
# lies within the bounds in brackets; the limits leave room for weak nets, not for wrong axes, frames or boxes.
FARTHEST_CENTRE = 0.5  # of the mean point from the box centre (0.002 to 0.265; on average 0.003 left, 0.054 below)
SPREAD = (0.12, 0.8)  # root mean square distance of the points from their mean (0.266 to 0.482)
FARTHEST_POINT = 1.5  # of any point from the box centre (the face's farthest: 0.445 to 0.897)
LEAST_UPRIGHT = 0.15  # chin below the brows' mean (0.575 to 1.196)
LEAST_EYES = -0.1  # right outer eye corner right of the left one (0.333 to 0.805)

OTHER_FRAME = "are they in pixels of the original picture, x before y, with the box their crop was cut with?"


@dataclass(frozen=True)
class Finding:
    """One class of defect: its name, what is wrong and where, with the first place in full, and the mend."""

    defect: str
    problem: str
    mend: str

    @property
    def sentence(self) -> str:
        return f"{self.problem}; {self.mend}"


@dataclass(frozen=True)
class Shapes:
    """How n faces lie against their boxes, each (n,), in units of the box's longer side."""

    off: np.ndarray  # of the mean point from the box centre
    farthest: np.ndarray  # point from the box centre
    spread: np.ndarray
    upright: np.ndarray
    eyes: np.ndarray


def point_findings(points_px: np.ndarray, faces: Faces, crop: CropConfig) -> list[Finding]:
    """What is wrong with predictions (n, 68, 2) for these faces. Faces with a value that is not finite are not judged.

    crop: how the nets' crops were cut, for points that were left in crop pixels.
    """
    sizes_px = picture_sizes(faces)
    broken = [(~right, *rule) for right, *rule in _rules(_shapes(points_px, faces.boxes_px))]
    open_faces = np.logical_or.reduce([wrong for wrong, *_ in broken]) & np.isfinite(points_px).all(axis=(1, 2))
    fitting = _fitting(points_px, faces, sizes_px, crop) if open_faces.any() else []
    findings, twins = _whole_file_finding(points_px, faces, fitting, open_faces), []
    # In a file whose points are in another frame, twins say nothing.
    if not findings:
        twins = _twin_findings(points_px, faces, sizes_px, open_faces)
        findings = list(_frame_findings(faces, fitting, open_faces))
    for wrong, defect, text, mend, measured in broken:
        rows = np.flatnonzero(wrong & open_faces)
        if len(rows):
            findings.append(_of_faces(rows, faces, defect, text.format(measured[rows[0]]), mend))
            open_faces[rows] = False
    return findings + twins


def not_finite(points_px: np.ndarray, faces: Faces) -> list[Finding]:
    """The finding that some predictions (n, 68, 2) are not finite, if they are not."""
    rows = np.flatnonzero(~np.isfinite(points_px).all(axis=(1, 2)))
    mend = "look at the training curve."
    return [_of_faces(rows, faces, "non-finite", "a value is not finite", mend)] if len(rows) else []


def spans(numbers: np.ndarray | list[int], most: int = 5) -> str:
    """Rising whole numbers in words, neighbours joined, the first few of them: '2 to 9, 12, 40 to 44 and 3 more places'."""
    numbers = np.asarray(numbers)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    listed = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    if len(listed) > most:
        listed = [*listed[:most], f"{len(listed) - most} more places"]
    return " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))


def face_name(row: int, faces: Faces) -> str:
    return f"{faces.pictures[row]} (face {row + 1} of {len(faces)}, Ids {row * VALUES} to {(row + 1) * VALUES - 1})"


def _of_faces(rows: np.ndarray, faces: Faces, defect: str, text: str, mend: str) -> Finding:
    ids = (rows[:, None] * VALUES + np.arange(VALUES)).ravel()
    more = f" ({len(rows)} faces: Ids {spans(ids)})" if len(rows) > 1 else ""
    return Finding(defect, f"{face_name(rows[0], faces)}: {text}{more}", mend)


def _shapes(points_px: np.ndarray, boxes_px: np.ndarray) -> Shapes:
    sides = boxes_px[:, 2:].max(axis=1)
    # Values may be absurd here, and their squares infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        points = (points_px.astype(np.float64) - (boxes_px[:, :2] + boxes_px[:, 2:] / 2)[:, None]) / sides[:, None, None]
        mean = points.mean(axis=1)
        brows = IBUG68.regions["left brow"] + IBUG68.regions["right brow"]
        left, right = IBUG68.eyes
        return Shapes(
            off=np.linalg.norm(mean, axis=1),
            farthest=np.linalg.norm(points, axis=2).max(axis=1),
            spread=np.sqrt(np.square(points - mean[:, None]).sum(axis=2).mean(axis=1)),
            upright=points[:, 8, 1] - points[:, brows, 1].mean(axis=1),
            eyes=points[:, right, 0] - points[:, left, 0],
        )


def _rules(shapes: Shapes) -> list[tuple[np.ndarray, str, str, str, np.ndarray]]:
    """Each rule of plausibility: which faces keep it, the defect's name, its words and mend, and what was measured."""
    off, farthest, spread, upright, eyes = shapes.off, shapes.farthest, shapes.spread, shapes.upright, shapes.eyes
    middle = "the middle of the points lies {:.2g} box sides from the middle of the box"
    flip = "was a flip undone without the left/right swap?"
    # A NaN passes no comparison, so each line states what is right and not what is wrong.
    return [
        (off <= FARTHEST_CENTRE, "off the box", middle, OTHER_FRAME, off),
        (
            farthest <= FARTHEST_POINT,
            "off the box",
            "a point lies {:.2g} box sides from the middle of the box",
            OTHER_FRAME,
            farthest,
        ),
        (spread >= SPREAD[0], "size", "the points crowd together, {:.2g} box sides about their middle", OTHER_FRAME, spread),
        (spread <= SPREAD[1], "size", "the points scatter, {:.2g} box sides about their middle", OTHER_FRAME, spread),
        (upright >= LEAST_UPRIGHT, "not upright", "the chin is not below the brows", "are x and y swapped?", upright),
        (eyes >= LEAST_EYES, "left and right", "the eyes stand the wrong way round", flip, eyes),
    ]


def _lifelike(shapes: Shapes) -> np.ndarray:
    """Which faces (n,) lie in their boxes as true ones do: the bounds of the training faces, a little widened."""
    in_place = (shapes.off <= 0.28) & (shapes.spread >= 0.25) & (shapes.spread <= 0.5)
    return in_place & (shapes.upright >= 0.5) & (shapes.eyes >= 0.3)


def _fitting(points_px: np.ndarray, faces: Faces, sizes_px: np.ndarray, crop: CropConfig) -> list[tuple[Frame, np.ndarray]]:
    """The frames that the points could be in, each with the faces (n,) that would lie in their boxes as true ones do;
    where two explain as much, the one first in which the faces have their usual size."""
    fitting = []
    for frame in frames(points_px, faces, sizes_px, crop):
        shapes = _shapes(frame.points_px, faces.boxes_px)
        fits = _lifelike(shapes)
        if fits.any():
            # Rounded, so that frames of one size stay in their order.
            fitting.append((round(float(np.abs(shapes.spread[fits] - USUAL_SPREAD).mean()), 3), frame, fits))
    return [(frame, fits) for _, frame, fits in sorted(fitting, key=lambda candidate: candidate[0])]


def _whole_file_finding(
    points_px: np.ndarray, faces: Faces, fitting: list[tuple[Frame, np.ndarray]], open_faces: np.ndarray
) -> list[Finding]:
    """Say that the file as a whole is in another frame, if more of its faces are lifelike there than as they stand. Takes
    the explained faces out of `open_faces`."""
    lifelike = _lifelike(_shapes(points_px, faces.boxes_px)).sum()

    def explains(fits: np.ndarray) -> bool:
        return fits.sum() > lifelike and 2 * (fits & open_faces).sum() >= open_faces.sum()

    for single in (True, False):
        candidates = [(frame, fits) for frame, fits in fitting if frame.single == single and explains(fits)]
        if candidates:
            frame, fits = max(candidates, key=lambda candidate: candidate[1].sum())
            open_faces[fits] = False
            return [_of_frame(np.flatnonzero(fits), faces, frame)]
    return []


def _frame_findings(faces: Faces, fitting: list[tuple[Frame, np.ndarray]], open_faces: np.ndarray) -> Iterator[Finding]:
    """Say of implausible faces in which other frame they would fit; a frame counts that explains at least half of those
    left, so that chance does not. Takes the explained faces out of `open_faces`."""
    fitting = [(frame, fits) for frame, fits in fitting if frame.single]
    while fitting and open_faces.any():
        frame, fits = max(fitting, key=lambda candidate: (candidate[1] & open_faces).sum())
        rows = np.flatnonzero(fits & open_faces)
        if 2 * len(rows) < open_faces.sum():
            return
        open_faces[rows] = False
        yield _of_frame(rows, faces, frame)


def _of_frame(rows: np.ndarray, faces: Faces, frame: Frame) -> Finding:
    return _of_faces(rows, faces, frame.defect, f"{frame.problem}: with that undone they fit the box", frame.mend)


def _twin_findings(points_px: np.ndarray, faces: Faces, sizes_px: np.ndarray, open_faces: np.ndarray) -> list[Finding]:
    """Say of which mirror twins the points were not, or only half, mirrored. Takes the twins out of `open_faces`."""
    findings, implausible = [], open_faces.copy()
    pairs = twin_pairs(faces)
    # Where both are implausible, their frame or their net is the matter, not their mirroring.
    pairs = pairs[~implausible[pairs].all(axis=1)]
    for problem, wrong in twin_steps(points_px, faces, sizes_px, pairs):
        # The implausible one is to blame; of two plausible ones, the twin.
        wrong = np.where(implausible[wrong[:, :1]], wrong[:, ::-1], wrong)
        others, blamed = wrong[np.argsort(wrong[:, 1])].T
        open_faces[blamed] = False
        mend = "mirror a twin's points with x' = width - 1 - x and swap the left with the right points."
        findings.append(_of_faces(blamed, faces, "mirror twins", f"the points are {faces.pictures[others[0]]}'s {problem}", mend))
    return findings
