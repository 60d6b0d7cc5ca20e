"""The meaning of a face's points: names of regions, mirror partners and the lines that draw a face.

IBUG68 is the 68-point markup of iBUG 300-W (Sagonas et al. 2013), IMM58 that of the IMM Face Database (Nordstrom et
al. 2004). "left" and "right" are the picture's, not the subject's.
"""

from dataclasses import dataclass

import numpy as np

from foldmark.core.errors import UserError


@dataclass(frozen=True)
class Markup:
    """A landmark markup.

    `mirror` (n,) gives, for each point of a flipped picture, the index of the point it was before: flipped points are
    `points[mirror]` with x' = width - 1 - x. `eyes` are the two outer eye corners whose distance normalises the NME, None for a
    part of a markup, as is then `nose_tip`. `lines` are runs of point indices to draw.
    """

    name: str
    count: int
    mirror: np.ndarray
    eyes: tuple[int, int] | None
    nose_tip: int | None
    regions: dict[str, list[int]]
    lines: list[list[int]]

    def require_eyes(self) -> tuple[int, int]:
        """The two outer eye corners. Raises ValueError for a markup without them."""
        if self.eyes is None:
            raise ValueError(f"markup {self.name} has no eye corners")
        return self.eyes

    def pick(self, points: list[int]) -> "Markup":
        """The markup of these points only; lines and eyes that lose a point go. Raises UserError for indices that are
        not there, there twice, or lack their mirror partner."""
        if not points or len(set(points)) < len(points) or max(points) >= self.count:
            raise UserError(f"data.points: {points} are not different points of 0 to {self.count - 1}.")
        lost = [point for point in points if self.mirror[point] not in points]
        if lost:
            raise UserError(f"data.points: point {lost[0]} needs its mirror partner {self.mirror[lost[0]]}, or a flip loses it.")
        place = {point: index for index, point in enumerate(points)}
        mirror = np.array([place[self.mirror[point]] for point in points])
        mirror.setflags(write=False)
        regions = {name: [place[point] for point in region if point in place] for name, region in self.regions.items()}
        return Markup(
            name=f"{self.name} of {len(points)}",
            count=len(points),
            mirror=mirror,
            eyes=None,
            nose_tip=None,
            regions={name: region for name, region in regions.items() if region},
            lines=[[place[point] for point in line] for line in self.lines if set(line) <= set(points)],
        )


def mirror_partners(count: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """`Markup.mirror` (count,) of points of which these pairs are each other's partner and the rest their own."""
    mirror = np.arange(count)
    for left, right in pairs:
        mirror[[left, right]] = right, left
    mirror.setflags(write=False)
    return mirror


def _run(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def _loop(first: int, last: int) -> list[int]:
    return [*_run(first, last), first]


IBUG68 = Markup(
    name="ibug68",
    count=68,
    mirror=mirror_partners(
        68,
        [(i, 16 - i) for i in range(8)]
        + [(17 + i, 26 - i) for i in range(5)]
        + [(31, 35), (32, 34)]
        + [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
        + [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56)]
        + [(60, 64), (61, 63), (67, 65)],
    ),
    eyes=(36, 45),
    nose_tip=30,
    regions={
        "jaw": _run(0, 16),
        "left brow": _run(17, 21),
        "right brow": _run(22, 26),
        "nose": _run(27, 35),
        "left eye": _run(36, 41),
        "right eye": _run(42, 47),
        "outer lips": _run(48, 59),
        "inner lips": _run(60, 67),
    },
    lines=[
        _run(0, 16),
        _run(17, 21),
        _run(22, 26),
        _run(27, 30),
        _run(31, 35),
        _loop(36, 41),
        _loop(42, 47),
        _loop(48, 59),
        _loop(60, 67),
    ],
)

IMM58 = Markup(
    name="imm58",
    count=58,
    mirror=mirror_partners(
        58,
        [(i, 12 - i) for i in range(6)]
        + [(13 + i, 21 + i) for i in range(8)]
        + [(29 + i, 34 + i) for i in range(5)]
        + [(39, 43), (40, 42), (46, 44)]
        + [(47 + i, 57 - i) for i in range(5)],
    ),
    eyes=(21, 13),
    nose_tip=52,
    regions={
        "jaw": _run(0, 12),
        "right eye": _run(13, 20),
        "left eye": _run(21, 28),
        "right brow": _run(29, 33),
        "left brow": _run(34, 38),
        "lips": _run(39, 46),
        "nose": _run(47, 57),
    },
    lines=[
        _run(0, 12),
        _loop(13, 20),
        _loop(21, 28),
        _run(29, 33),
        _run(34, 38),
        _loop(39, 46),
        _run(47, 57),
    ],
)
