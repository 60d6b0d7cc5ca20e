"""A parametric head: its shape, its painted skin, and the curves on which landmarks lie.

The head frame is in millimetres: x to the picture's right, y down, z towards the viewer, the origin between the
eyes. Sizes follow adult averages (face about 140 mm wide, 120 mm from the eyes to the chin). Everything on the face
is placed in the frontal (x, y) plane and lifted onto the surface by `front_z`, so what is painted and what is
annotated are the same curves.

Curves (`jaw_xy`, `brow_xy`, `lid_xy`, `nose_xy`, `mouth_xy`) take positions along the curve; a markup is a list of
such positions. `ibug68_xy` is the 68-point one; another markup (IMM's 58) asks the same curves at other positions.
"""

from dataclasses import dataclass

import numpy as np

LEFT, RIGHT = 0, 1  # sides of the picture, not of the person
SIDE_SIGN = (-1.0, 1.0)


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


def sample_head(rng: np.random.Generator) -> Head:
    """Draw one identity and one expression."""

    def normal(mean, spread):
        return float(mean + spread * np.clip(rng.normal(), -2.2, 2.2))

    chance = rng.random(5)
    mouth_open = float(rng.gamma(1.6, 6.0)) if chance[0] < 0.42 else 0.0
    mouth_open = min(mouth_open, 30.0)
    smile = normal(0.65, 0.25) if chance[1] < 0.4 else normal(0.0, 0.16)
    lift = normal(0.0, 1.2) + (rng.uniform(2, 8) if chance[2] < 0.2 else 0.0)
    frown = rng.uniform(0.4, 1.0) if chance[3] < 0.2 else 0.0
    opening = normal(11.4, 1.5) + 0.35 * max(lift, 0) - 2.0 * max(smile, 0) - 1.5 * frown
    eye_open = [max(opening + normal(0, 0.35), 3.0) for _ in range(2)]
    if chance[4] < 0.07:
        eye_open = [0.4, 0.4]
    elif chance[4] < 0.10:
        eye_open[rng.integers(2)] = 0.5
    length = normal(1.0, 0.055)
    nose_tip = normal(41, 3.2) * length
    mouth_y = nose_tip + normal(33, 2.6)
    return Head(
        half_width=normal(69, 4.0), chin_y=mouth_y + normal(42, 3.5) + 0.75 * mouth_open, jaw_power=normal(2.9, 0.35),
        jaw_round=normal(1.85, 0.2), flatness=normal(2.2, 0.1), cheekbone=normal(3.5, 1.6) + 2.0 * max(smile, 0),
        cheek_hollow=normal(2.5, 1.8) + 0.05 * mouth_open, chin_ball=normal(4.5, 1.8), brow_ridge=normal(2.6, 1.4),
        eye_x=normal(31.5, 1.7), eye_half_width=normal(15.2, 0.9), eye_open=tuple(eye_open), eye_slant=normal(1.0, 1.3),
        socket=normal(6.0, 1.6), lid_fold=normal(3.6, 1.2), gaze=(normal(0, 1.9), normal(0, 0.9)),
        brow_y=normal(-21.5, 2.0), brow_arch=normal(3.4, 1.6), brow_slope=normal(-0.5, 1.6), brow_thick=normal(3.7, 0.9),
        brow_frown=float(frown), brow_lift=(lift + normal(0, 0.6), lift + normal(0, 0.6)),
        nose_tip_y=nose_tip, nose_out=normal(18.5, 2.6), nose_half_width=normal(16.5, 2.2), nose_bridge=normal(5.5, 1.7),
        mouth_y=mouth_y, mouth_half_width=normal(25.0, 2.2) - 0.12 * mouth_open,
        lip_upper=normal(6.6, 1.5), lip_lower=normal(8.6, 1.6),
        smile=(smile + normal(0, 0.07), smile + normal(0, 0.07)), mouth_open=mouth_open,
    )  # fmt: skip


# --- shape ----------------------------------------------------------------------------------------


CROWN_Y = -116.0


def _below_above(head: Head, y):
    """Position between eye level (0) and chin or crown (1), each as an array of y's shape."""
    return np.clip(y / head.chin_y, 0, 1), np.clip(y / CROWN_Y, 0, 1)


def half_width(head: Head, y):
    """Half the width of the face outline at height y, seen from the front."""
    below, above = _below_above(head, y)
    return head.half_width * (1 - below**head.jaw_power) ** (1 / head.jaw_round) * (1 - above**2.7) ** (1 / 2.2)


def outline_z(head: Head, y):
    """Depth of the widest place at height y: beside the ear at eye level, far forward at the chin."""
    below, above = _below_above(head, y)
    return -6 - 8 * above + 78 * below**4


def _front_reach(head: Head, y):
    below, above = _below_above(head, y)
    return (92 - 78 * below**4 - 6 * below) * (1 - below**11) ** 0.5 * (1 - above**2.8) ** 0.5


def _back_reach(head: Head, y):
    below, above = _below_above(head, y)
    return (98 - 25 * below) * (1 - below**3) ** 0.5 * (1 - above**2.6) ** 0.5


def _bump(x, y, at_x, at_y, size_x, size_y):
    return np.exp(-0.5 * (((x - at_x) / size_x) ** 2 + ((y - at_y) / size_y) ** 2))


def _step(value):
    return 1 / (1 + np.exp(-np.clip(value, -30, 30)))


def relief(head: Head, x, y):
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


def front_z(head: Head, x, y):
    """Depth of the face surface at the frontal position (x, y), arrays of one shape inside the outline."""
    share = np.clip(np.abs(x) / np.maximum(half_width(head, y), 1e-6), 0, 1)
    lift = (1 - share**head.flatness) ** (1 / head.flatness)
    return outline_z(head, y) + _front_reach(head, y) * lift + relief(head, x, y) * np.clip(2 * lift, 0, 1)


def surface(head: Head, angle, y):
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


# --- curves ---------------------------------------------------------------------------------------


def jaw_xy(head: Head, along):
    """Face outline from picture left (0) over the chin (0.5) to picture right (1), evenly by length. Returns (n, 2)."""
    slope = np.linspace(-1, 1, 401)
    y = head.chin_y * (1 - np.abs(slope) ** 2.2) + 3 * np.abs(slope) ** 2.2
    outline = np.stack([np.sign(slope) * half_width(head, y), y], axis=1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    return np.stack([np.interp(np.asarray(along) * length[-1], length, outline[:, axis]) for axis in (0, 1)], axis=1)


def brow_xy(head: Head, side: int, along):
    """Middle line of a brow from its inner (0) to its outer end (1). Returns (n, 2)."""
    along = np.asarray(along, float)
    inner, outer = 0.42 * head.eye_x - 1.5 * head.brow_frown, head.eye_x + 1.3 * head.eye_half_width
    x = SIDE_SIGN[side] * (inner + (outer - inner) * along)
    arch = head.brow_arch * np.sin(np.pi * along**1.35) - head.brow_slope * along
    y = head.brow_y + 2 - arch - head.brow_lift[side] * (1 - 0.3 * along) + head.brow_frown * 6.0 * (1 - along) ** 1.5
    return np.stack([x, y], axis=1)


def lid_xy(head: Head, side: int, upper: bool, along):
    """Edge of a lid from the inner (0) to the outer corner of the eye (1). Returns (n, 2)."""
    along = np.asarray(along, float)
    x = SIDE_SIGN[side] * (head.eye_x + head.eye_half_width * (2 * along - 1))
    corner_y = 2 - head.eye_slant * (along - 0.3) * 2
    opening = head.eye_open[side]
    # A closing upper lid comes down onto the lower one, which keeps its own slight bow.
    lower_bow = (2.2 + 0.12 * opening) * np.sin(np.pi * along) ** 0.9
    upper_bow = opening * np.sin(np.pi * along**0.9) ** 0.75 - lower_bow
    return np.stack([x, corner_y + (-upper_bow if upper else lower_bow)], axis=1)


def nose_xy(head: Head, part: str, along):
    """The ridge from between the eyes (0) to the tip (1), or the base from wing (0) to wing (1). Returns (n, 2)."""
    along = np.asarray(along, float)
    if part == "ridge":
        return np.stack([np.zeros_like(along), -4 + (head.nose_tip_y + 4) * along], axis=1)
    across = 2 * along - 1
    return np.stack([0.86 * head.nose_half_width * across, head.nose_tip_y + 11.5 - 3.4 * across**2], axis=1)


def mouth_xy(head: Head, edge: str, across):
    """Edge of the lips ('outer_upper', 'inner_upper', 'inner_lower', 'outer_lower') at across -1 (left corner)
    to 1. Returns (n, 2).
    """
    across = np.asarray(across, float)
    smile = np.where(across < 0, head.smile[LEFT], head.smile[RIGHT])
    lift = np.maximum(smile, -0.5)
    x = across * (head.mouth_half_width + 5.0 * lift * np.abs(across))
    gap = head.mouth_open
    y = head.mouth_y + 0.25 * gap - 6.0 * smile * np.abs(across) ** 2.2 + 1.0 * lift
    bow = np.sqrt(np.clip(1 - across**2, 0, 1))
    if edge.endswith("upper"):
        y = y - 0.37 * gap * bow
        if edge == "outer_upper":
            cupid = np.clip(1 - np.abs(across), 0, 1) ** 0.75 * 1.28 - 0.42 * np.exp(-0.5 * (across / 0.13) ** 2)
            y = y - head.lip_upper * (1 - 0.25 * lift) * np.minimum(cupid, 1.4)
    else:
        y = y + 0.63 * gap * bow + 0.2
        if edge == "outer_lower":
            y = y + head.lip_lower * (1 - 0.2 * lift) * bow**1.25
    return np.stack([x, y], axis=1)


def ibug68_xy(head: Head, brow_ends: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The 68 points of iBUG / 300-W as frontal positions (68, 2) in mm; `brow_ends` is how far along each brow
    can be seen (`visible_brow`).
    """
    brow = np.array([0, 0.25, 0.5, 0.75, 1])
    lid = np.array([0.32, 0.68])
    outer, inner = np.array([0.62, 0.24, 0]), np.array([0.4, 0])

    def eye(side, first, upper, last, lower):
        corner = {t: lid_xy(head, side, True, [t]) for t in (0, 1)}
        return [corner[first], lid_xy(head, side, True, upper), corner[last], lid_xy(head, side, False, lower)]

    upper_lip = np.concatenate([-outer, outer[-2::-1]])
    return np.concatenate([
        jaw_xy(head, np.linspace(0, 1, 17)),
        brow_xy(head, LEFT, brow_ends[LEFT] * brow[::-1]), brow_xy(head, RIGHT, brow_ends[RIGHT] * brow),
        nose_xy(head, "ridge", np.linspace(0, 1, 4)), nose_xy(head, "base", np.linspace(0, 1, 5)),
        *eye(LEFT, 1, lid[::-1], 0, lid), *eye(RIGHT, 0, lid, 1, lid[::-1]),
        mouth_xy(head, "outer_upper", [-1, *upper_lip, 1]), mouth_xy(head, "outer_lower", -upper_lip),
        mouth_xy(head, "inner_upper", [-0.86, -inner[0], 0, inner[0], 0.86]),
        mouth_xy(head, "inner_lower", [inner[0], 0, -inner[0]]),
    ])  # fmt: skip


def _upright(project) -> np.ndarray:
    """Unit vectors (2, 2) of the head's right and down in the picture."""
    down = np.diff(project(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])), axis=0)[0]
    down /= np.linalg.norm(down)
    return np.array([[down[1], -down[0]], down])


def visible_brow(head: Head, side: int, project) -> float:
    """How far along a brow (0..1) it can be seen before the temple turns away; annotators spread their points
    over that part.
    """
    along = np.linspace(0, 1, 101)
    line = brow_xy(head, side, along)
    line_px = project(np.column_stack([line, front_z(head, line[:, 0], line[:, 1])]))
    return float(along[np.argmax(SIDE_SIGN[side] * line_px @ _upright(project)[0])])


def visible_outline(head: Head, jaw: np.ndarray, project) -> np.ndarray:
    """Outline points as an annotator of 300-W sets them: on the face's visible edge where the true jaw line has turned
    away.

    Each point slides along a path from the jaw (n, 2) towards the middle of the face and stops where it is furthest
    out in the picture ("landmark marching", Zhu et al., CVPR 2015). `project` maps (..., 3) mm to (..., 2) pixels.
    Returns (n, 2) pixels.
    """
    inward = np.linspace(0, 0.75, 76)
    middle = np.stack([np.zeros(len(jaw)), 0.5 * jaw[:, 1] + 0.2 * head.chin_y], axis=1)
    path = jaw[:, None] + inward[None, :, None] * (middle - jaw)[:, None]
    path_px = project(np.concatenate([path, front_z(head, path[..., 0], path[..., 1])[..., None]], axis=-1))
    tangent = np.gradient(jaw, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    outward = normal @ _upright(project)
    furthest = np.argmax(np.einsum("npd,nd->np", path_px, outward), axis=1)
    return path_px[np.arange(len(jaw)), furthest]
