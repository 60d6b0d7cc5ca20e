"""The table of faces: one row per face. The readers in `data` fill it."""

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
    points_px: (n, k, 2) in the original picture; None where the points are withheld.
    sizes_px: (n, 2) width, height of the picture as the label file states them, 0 where it does not.
    groups: n names; faces that share one belong together in a split: one photo or, where the set names them, one person.
    eye_distance_px: (n,) between the outer eye corners, which the NME is measured in; None without points.
    """

    root: Path
    pictures: list[str]
    boxes_px: np.ndarray
    points_px: np.ndarray | None
    sizes_px: np.ndarray
    groups: list[str]
    markup: Markup = IBUG68
    eye_distance_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Kept apart from the points, so that picking some of them does not lose the measure of their error.
        if self.points_px is not None and self.eye_distance_px is None:
            left, right = self.markup.eyes
            distance = np.linalg.norm(self.points_px[:, left] - self.points_px[:, right], axis=1)
            object.__setattr__(self, "eye_distance_px", distance)

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: np.ndarray) -> "Faces":
        """The faces of these rows (indices or a mask), in that order."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            pictures=[self.pictures[row] for row in rows],
            boxes_px=self.boxes_px[rows],
            points_px=None if self.points_px is None else self.points_px[rows],
            sizes_px=self.sizes_px[rows],
            groups=[self.groups[row] for row in rows],
            eye_distance_px=None if self.eye_distance_px is None else self.eye_distance_px[rows],
        )

    def pick_points(self, points: list[int]) -> "Faces":
        """The faces with only these points of their markup. Raises UserError for points that a flip would lose."""
        markup = self.markup.pick(points)
        return replace(self, markup=markup, points_px=None if self.points_px is None else self.points_px[:, points])

    def path(self, row: int) -> Path:
        return self.root / self.pictures[row]

    @property
    def sources(self) -> list[str]:
        """The collection each picture comes from: the first folder of its path."""
        return [PurePosixPath(picture).parts[0] if "/" in picture else "." for picture in self.pictures]
