"""The table of faces: one row per face. The readers in `data` fill it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from foldmark.core.markup import IBUG68, Markup


@dataclass(frozen=True)
class Faces:
    """A table of n faces.

    root: folder that the picture paths start from.
    pictures: n paths with forward slashes, as the label file writes them.
    boxes_px: (n, 4) left, top, width, height in the original picture.
    labels_px: (n, k, 2) annotated points in the original picture; None where they are withheld. Read them as `points_px`.
    sizes_px: (n, 2) width, height of the picture as the label file states them, 0 where it does not.
    groups: n names; faces that share one belong together in a split: one photo or, where the set names them, one person.
    eye_distances_px: (n,) between the outer eye corners, which the NME is measured in; None without points. Read them as
    `eye_distance_px`.
    """

    root: Path
    pictures: list[str]
    boxes_px: np.ndarray
    labels_px: np.ndarray | None
    sizes_px: np.ndarray
    groups: list[str]
    markup: Markup = IBUG68
    eye_distances_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Kept apart from the points, so that picking some of them does not lose the measure of their error.
        if self.labels_px is not None and self.eye_distances_px is None and self.markup.eyes:
            left, right = self.markup.eyes
            distance = np.linalg.norm(self.labels_px[:, left] - self.labels_px[:, right], axis=1)
            object.__setattr__(self, "eye_distances_px", distance)

    @property
    def points_px(self) -> np.ndarray:
        """The annotated points (n, k, 2). Raises ValueError for faces whose points are withheld."""
        if self.labels_px is None:
            raise ValueError("the points of these faces are withheld")
        return self.labels_px

    @property
    def eye_distance_px(self) -> np.ndarray:
        """Distance (n,) between the outer eye corners. Raises ValueError for faces whose points are withheld."""
        if self.eye_distances_px is None:
            raise ValueError("the eye corners of these faces are not known")
        return self.eye_distances_px

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: np.ndarray) -> "Faces":
        """The faces of these rows (indices or a mask), in that order."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            pictures=[self.pictures[row] for row in rows],
            boxes_px=self.boxes_px[rows],
            labels_px=None if self.labels_px is None else self.labels_px[rows],
            sizes_px=self.sizes_px[rows],
            groups=[self.groups[row] for row in rows],
            eye_distances_px=None if self.eye_distances_px is None else self.eye_distances_px[rows],
        )

    def find_rows(self, pictures: Sequence[str], boxes_px: np.ndarray) -> np.ndarray:
        """The row (m,) of each of these pictures with their boxes (m, 4), in any order. Raises ValueError for one that is not
        there."""
        rows_of: dict[tuple, list[int]] = {}
        for row, key in enumerate(zip(self.pictures, map(tuple, self.boxes_px.tolist()), strict=True)):
            rows_of.setdefault(key, []).append(row)
        rows = []
        for picture, box in zip(pictures, map(tuple, boxes_px.tolist()), strict=True):
            candidates = rows_of.get((picture, box))
            if not candidates:
                raise ValueError(f"{picture} is not in the data set with that box")
            rows.append(candidates.pop(0))
        return np.array(rows, dtype=int)

    def pick_points(self, points: list[int]) -> "Faces":
        """The faces with only these points of their markup. Raises UserError for points that a flip would lose."""
        markup = self.markup.pick(points)
        return replace(self, markup=markup, labels_px=None if self.labels_px is None else self.labels_px[:, points])

    def path(self, row: int) -> Path:
        return self.root / self.pictures[row]

    @property
    def sources(self) -> list[str]:
        """The collection each picture comes from: the first folder of its path."""
        return [PurePosixPath(picture).parts[0] if "/" in picture else "." for picture in self.pictures]
