"""A parametric head: its measures and its surface.

The head frame is in millimetres: x to the picture's right, y down, z towards the viewer, the origin between the
eyes. Sizes follow adult averages (face about 140 mm wide, 120 mm from the eyes to the chin). Everything on the face
is placed in the frontal (x, y) plane and lifted onto the surface by `front_z`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

LEFT, RIGHT = 0, 1  # sides of the picture, not of the person
SIDE_SIGN = (-1.0, 1.0)

Place = np.ndarray | float  # coordinates in mm: an array, or one; what is computed from them has the same shape


@dataclass(frozen=True)
class Head:
    """One face with its expression. Lengths in mm; pairs are (picture left, picture right)."""

    half_width: float
    chin_y: float
    jaw_power: float  # larger: the cheeks stay wide further down
    jaw_round: float  # larger: a broader, squarer chin
    flatness: float  # exponent of the horizontal section; 2 is an ellipse
    cheekbone: float
    cheek_hollow: float
    chin_ball: float
    brow_ridge: float
    eye_x: float
    eye_half_width: float
    eye_open: tuple[float, float]
    eye_slant: float
    socket: float
    lid_fold: float
    gaze: tuple[float, float]
    brow_y: float
    brow_arch: float
    brow_slope: float
    brow_thick: float
    brow_frown: float
    brow_lift: tuple[float, float]
    nose_tip_y: float
    nose_out: float
    nose_half_width: float
    nose_bridge: float
    mouth_y: float
    mouth_half_width: float
    lip_upper: float
    lip_lower: float
    smile: tuple[float, float]
    mouth_open: float


@dataclass(frozen=True)
class Expression:
    """What a face does for a moment; pairs are (picture left, picture right)."""

    smile: float = 0.0  # 1 is a broad one, below 0 the corners hang
    mouth_open: float = 0.0  # mm
    brow_lift: float = 0.0  # mm
    brow_frown: float = 0.0  # 0 to 1
    closed: tuple[bool, bool] = (False, False)
    gaze: tuple[float, float] = (0.0, 0.0)  # of the iris, mm to the right and down


def _normal(rng: np.random.Generator, mean: float, spread: float) -> float:
    return float(mean + spread * np.clip(rng.normal(), -2.2, 2.2))


def sample_expression(rng: np.random.Generator) -> Expression:
    chance = rng.random(5)
    mouth_open = min(float(rng.gamma(1.6, 6.0)), 30.0) if chance[0] < 0.42 else 0.0
    smile = _normal(rng, 0.65, 0.25) if chance[1] < 0.4 else _normal(rng, 0.0, 0.16)
    lift = _normal(rng, 0.0, 1.2) + (rng.uniform(2, 8) if chance[2] < 0.2 else 0.0)
    frown = rng.uniform(0.4, 1.0) if chance[3] < 0.2 else 0.0
    wink = int(rng.integers(2)) if 0.07 <= chance[4] < 0.10 else None
    closed = (True, True) if chance[4] < 0.07 else (wink == LEFT, wink == RIGHT)
    return Expression(smile, mouth_open, lift, frown, closed, (_normal(rng, 0, 1.9), _normal(rng, 0, 0.9)))


def sample_head(rng: np.random.Generator, expression: Expression) -> Head:
    """Draw one identity; the same state of `rng` gives the same person with any expression."""

    def normal(mean: float, spread: float) -> float:
        return _normal(rng, mean, spread)

    def pair(mean: float, spread: float) -> tuple[float, float]:
        return mean + normal(0, spread), mean + normal(0, spread)

    smile, mouth_open = expression.smile, expression.mouth_open
    lift, frown = expression.brow_lift, expression.brow_frown
    opening = normal(11.4, 1.5) + 0.35 * max(lift, 0) - 2.0 * max(smile, 0) - 1.5 * frown
    left, right = (
        0.4 if closed else max(open_mm, 3.0) for closed, open_mm in zip(expression.closed, pair(opening, 0.35), strict=True)
    )
    length = normal(1.0, 0.055)
    nose_tip = normal(41, 3.2) * length
    mouth_y = nose_tip + normal(33, 2.6)
    return Head(
        half_width=normal(71.5, 4.0), chin_y=mouth_y + normal(42, 3.5) + 0.75 * mouth_open, jaw_power=normal(2.9, 0.35),
        jaw_round=normal(1.85, 0.2), flatness=normal(2.2, 0.1), cheekbone=normal(3.5, 1.6) + 2.0 * max(smile, 0),
        cheek_hollow=normal(2.5, 1.8) + 0.05 * mouth_open, chin_ball=normal(4.5, 1.8), brow_ridge=normal(2.6, 1.4),
        eye_x=normal(31.5, 1.7), eye_half_width=normal(15.2, 0.9), eye_open=(left, right), eye_slant=normal(1.0, 1.3),
        socket=normal(6.0, 1.6), lid_fold=normal(3.6, 1.2), gaze=expression.gaze,
        brow_y=normal(-21.5, 2.0), brow_arch=normal(3.4, 1.6), brow_slope=normal(-0.5, 1.6), brow_thick=normal(3.7, 0.9),
        brow_frown=frown, brow_lift=pair(lift, 0.6),
        nose_tip_y=nose_tip, nose_out=normal(18.5, 2.6), nose_half_width=normal(16.5, 2.2), nose_bridge=normal(5.5, 1.7),
        mouth_y=mouth_y, mouth_half_width=normal(25.0, 2.2) - 0.12 * mouth_open,
        lip_upper=normal(6.6, 1.5), lip_lower=normal(8.6, 1.6),
        smile=pair(smile, 0.07), mouth_open=mouth_open,
    )  # fmt: skip


# --- shape ----------------------------------------------------------------------------------------


CROWN_Y = -116.0


def _below_above(head: Head, y: Place) -> tuple[Any, Any]:
    """Position between eye level (0) and chin or crown (1), each as an array of y's shape."""
    return np.clip(y / head.chin_y, 0, 1), np.clip(y / CROWN_Y, 0, 1)


def half_width(head: Head, y: Place) -> Any:
    """Half the width of the face outline at height y, seen from the front."""
    below, above = _below_above(head, y)
    return head.half_width * (1 - below**head.jaw_power) ** (1 / head.jaw_round) * (1 - above**2.7) ** (1 / 2.2)


def outline_z(head: Head, y: Place) -> Any:
    """Depth of the widest place at height y: beside the ear at eye level, far forward at the chin."""
    below, above = _below_above(head, y)
    return -6 - 8 * above + 78 * below**4


def _front_reach(head: Head, y: Place) -> Any:
    below, above = _below_above(head, y)
    return (92 - 78 * below**4 - 6 * below) * (1 - below**11) ** 0.5 * (1 - above**2.8) ** 0.5


def _back_reach(head: Head, y: Place) -> Any:
    below, above = _below_above(head, y)
    return (98 - 25 * below) * (1 - below**3) ** 0.5 * (1 - above**2.6) ** 0.5


def _bump(x: Place, y: Place, at_x: float, at_y: float, size_x: float, size_y: float) -> Any:
    return np.exp(-0.5 * (((x - at_x) / size_x) ** 2 + ((y - at_y) / size_y) ** 2))


def _step(value: Place) -> Any:
    return 1 / (1 + np.exp(-np.clip(value, -30, 30)))


def relief(head: Head, x: Place, y: Place) -> Any:
    """What nose, eyes, lips, cheeks and chin add to the depth of the smooth head, in mm."""
    side = np.abs(x)
    tip = head.nose_tip_y
    along = np.clip((y + 6) / (tip + 6), 0, 1)
    ridge = (
        (head.nose_bridge + (head.nose_out - head.nose_bridge) * along**1.35)
        * _step((y + 7) / 4.5)
        * _step((tip + 6.5 - y) / 2.1)
    )
    wing = head.nose_half_width
    z = ridge * np.exp(-0.5 * (x / (5.2 + 0.24 * wing * along)) ** 2)
    z = z + 3.0 * _bump(x, y, 0, tip, 7.0, 5.0) + 0.42 * head.nose_out * _bump(side, y, 0.72 * wing, tip + 4.5, 0.27 * wing, 4.3)
    # Sockets, the eyeballs in them, and the brow ridge above.
    z = z - head.socket * _bump(side, y, 0.84 * head.eye_x, -5, 15, 9.5) + 4.2 * _bump(side, y, head.eye_x, 0.5, 9.5, 7.0)
    z = z + head.brow_ridge * _bump(side, y, 26, head.brow_y + 1, 18, 6.5) - 1.5 * _bump(side, y, head.eye_x, 17, 15, 4)
    # Cheeks, folds, muzzle.
    z = z + head.cheekbone * _bump(side, y, 43, 30, 14, 13) - head.cheek_hollow * _bump(side, y, 45, 68, 12, 16)
    z = z + 3.2 * _bump(x, y, 0, head.mouth_y - 6, 21, 15)
    for sign in SIDE_SIGN:
        raised = max(head.smile[sign > 0], 0)
        z = (
            z
            + (1 + 3.2 * raised) * _bump(x, y, sign * 33, 46, 9, 9)
            - (1.2 + 1.6 * raised) * _bump(x, y, sign * 29, head.mouth_y - 5, 4.5, 9)
        )
    # Lips, the hollow under them, chin.
    gap = head.mouth_open
    upper_y, lower_y = head.mouth_y - 0.12 * gap, head.mouth_y + 0.88 * gap
    reach = 0.55 * head.mouth_half_width
    z = z + 0.42 * head.lip_upper * _bump(x, y, 0, upper_y - 0.5 * head.lip_upper, reach, 0.42 * head.lip_upper)
    z = z + 0.42 * head.lip_lower * _bump(x, y, 0, lower_y + 0.5 * head.lip_lower, reach, 0.42 * head.lip_lower)
    z = z - 0.9 * _bump(x, y, 0, tip + 18, 2.2, 6.5)
    chin = head.chin_y - 14
    return z - 3.4 * _bump(x, y, 0, lower_y + head.lip_lower + 6, 15, 5) + head.chin_ball * _bump(x, y, 0, chin, 12, 9)


def front_z(head: Head, x: Place, y: Place) -> Any:
    """Depth of the face surface at the frontal position (x, y), arrays of one shape inside the outline."""
    share = np.clip(np.abs(x) / np.maximum(half_width(head, y), 1e-6), 0, 1)
    lift = (1 - share**head.flatness) ** (1 / head.flatness)
    return outline_z(head, y) + _front_reach(head, y) * lift + relief(head, x, y) * np.clip(2 * lift, 0, 1)


def surface(head: Head, angle: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smooth head without its relief.

    y (rows,) is the height; angle (columns,) runs from 0 at the nose to +-pi at the back. Returns points (rows,
    columns, 3) and how much of the relief each carries (rows, columns): 1 on the face, falling to 0 at its edge.
    """
    sin, cos = np.sin(angle)[None], np.cos(angle)[None]
    y = y[:, None]
    section = (np.abs(sin) ** head.flatness + np.abs(cos) ** head.flatness) ** (-1 / head.flatness)
    x = half_width(head, y) * sin * section
    reach = np.where(cos > 0, _front_reach(head, y), _back_reach(head, y))
    lift = cos * section
    points = np.stack([x, np.broadcast_to(y, x.shape), outline_z(head, y) + reach * lift], axis=-1)
    return points, np.clip(2 * lift, 0, 1)
