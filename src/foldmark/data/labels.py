"""Shared parts of the label file readers: finding a set's folder, plain numbers, paths that stay inside, possible faces."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces

# On the faces of iBUG 300-W and IMM the points span at most 1.34 times the box, the eyes are at least 0.29 of that span apart,
# the points are at least 0.63 times as wide across as along, and at least half of them lie in the box.
MOST_SPAN, LEAST_EYE_DISTANCE, LEAST_WIDTH = 4.0, 0.02, 0.01


def find_folder(data_root: Path, holds_it: Callable[[Path], bool]) -> Path | None:
    """The first folder, `data_root` itself or up to two levels below it, for which `holds_it` is true; None without one.

    Hidden folders are skipped: unfinished sets are kept there.
    """
    below = [path for pattern in ("*", "*/*") for path in sorted(data_root.glob(pattern))]
    shown = [path for path in below if not any(part.startswith(".") for part in path.relative_to(data_root).parts)]
    return next((folder for folder in [data_root, *shown] if folder.is_dir() and holds_it(folder)), None)


def refuse_links_outside(root: Path, pictures: list[str], listed_in: Path) -> None:
    """Raise UserError for a picture that a link takes out of the data folder."""
    home = root.resolve()
    folders = {}
    for picture in pictures:
        path = root / picture
        try:
            # Folders are few and slow to resolve, files are many.
            if path.parent not in folders:
                folders[path.parent] = path.parent.resolve()
            real = path.resolve() if path.is_symlink() else folders[path.parent]
        except (OSError, RuntimeError):  # a link that leads to itself, by the version of Python
            raise UserError(f"{listed_in}: {picture!r} is a link that leads nowhere; put the picture itself there.") from None
        if not real.is_relative_to(home):
            raise UserError(
                f"{listed_in}: {picture!r} leaves the data folder through a link; put the picture itself below {root}."
            )


def parse_number(text: str) -> float:
    """The number that a label file's text states. Raises ValueError for what only Python reads as one: 1_0, digits of other
    scripts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def find_impossible(faces: Faces) -> dict[int, str]:
    """The faces that cannot be right, row -> why: boxes or points that are not finite or have no area, eyes on one spot, a box
    far too small for its points or beside them. Training refuses them; the doctor lists odd faces as well."""
    low, high = faces.boxes_px[:, :2], faces.boxes_px[:, :2] + faces.boxes_px[:, 2:]
    with np.errstate(invalid="ignore"):
        why = {
            "the box is not finite": ~np.isfinite(faces.boxes_px).all(axis=1),
            "the box has no area": (faces.boxes_px[:, 2:] <= 0).any(axis=1),
        }
        if faces.labels_px is not None:
            points_px = np.nan_to_num(faces.points_px)
            first, last = points_px.min(axis=1), points_px.max(axis=1)
            span = (last - first).max(axis=1)
            # Without the outermost tenths: one wild point is no reason to doubt the box.
            inner_span = np.ptp(np.quantile(points_px, [0.1, 0.9], axis=1), axis=0).max(axis=1)
            spread = np.linalg.svd(points_px - points_px.mean(axis=1, keepdims=True), compute_uv=False)
            why |= {
                "a point is not finite": ~np.isfinite(faces.points_px).all(axis=(1, 2)),
                "all points are on one spot": span == 0,
                "all points are on one line": (points_px.shape[1] > 2) & (spread[:, -1] <= LEAST_WIDTH * spread[:, 0]),
                "the outer eye corners are on one spot": faces.eye_distance_px <= LEAST_EYE_DISTANCE * span,
                "the box is far too small for the points": inner_span > MOST_SPAN * faces.boxes_px[:, 2:].max(axis=1),
                "the box lies beside the points": ((last < low) | (first > high)).any(axis=1),
            }
    impossible: dict[int, str] = {}
    for reason, where in why.items():
        for row in np.flatnonzero(where):
            impossible.setdefault(int(row), reason)
    return dict(sorted(impossible.items()))


def refuse_impossible(faces: Faces, listed_in: Path) -> None:
    """Raise UserError that names the first faces that cannot be right, if there are any."""
    impossible = find_impossible(faces)
    if impossible:
        shown = "; ".join(f"{faces.pictures[row]}: {reason}" for row, reason in list(impossible.items())[:5])
        more = f"; and {len(impossible) - 5} more" if len(impossible) > 5 else ""
        raise UserError(f"{listed_in}: faces that cannot be right: {shown}{more}. Correct or remove them; make check lists all.")
