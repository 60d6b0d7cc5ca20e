"""The curves of a face on which both its paint and its landmarks lie, and the markups that ask them.

A curve (`jaw_xy`, `brow_xy`, `lid_xy`, `nose_xy`, `mouth_xy`) takes positions along itself and returns frontal
positions (n, 2) in mm, which `head.front_z` lifts onto the surface. A markup is a list of such positions.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from foldmark.synthetic.head import LEFT, RIGHT, SIDE_SIGN, Head, front_z, half_width

Project = Callable[[np.ndarray], np.ndarray]  # mm (..., 3) to pixels (..., 2)


def jaw_xy(head: Head, along: ArrayLike) -> np.ndarray:
    """Face outline from picture left (0) over the chin (0.5) to picture right (1), evenly by length. Returns (n, 2)."""
    slope = np.linspace(-1, 1, 401)
    y = head.chin_y * (1 - np.abs(slope) ** 2.2) + 3 * np.abs(slope) ** 2.2
    outline = np.stack([np.sign(slope) * half_width(head, y), y], axis=1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    return np.stack([np.interp(np.asarray(along) * length[-1], length, outline[:, axis]) for axis in (0, 1)], axis=1)


def brow_xy(head: Head, side: int, along: ArrayLike, across: np.ndarray | float = 0.0) -> np.ndarray:
    """A brow from its inner (0) to its outer end (1), and across from its upper (-0.5) to its lower edge (0.5).
    Returns (n, 2).
    """
    along = np.asarray(along, float)
    inner, outer = 0.42 * head.eye_x - 1.5 * head.brow_frown, head.eye_x + 1.5 * head.eye_half_width
    x = SIDE_SIGN[side] * (inner + (outer - inner) * along)
    arch = head.brow_arch * np.sin(np.pi * along**1.35) - head.brow_slope * along
    y = head.brow_y + 2 - arch - head.brow_lift[side] * (1 - 0.3 * along) + head.brow_frown * 6.0 * (1 - along) ** 1.5
    return np.stack([x, y + across * brow_width(head, along)], axis=1)


def brow_width(head: Head, along: np.ndarray) -> np.ndarray:
    return 1.35 * head.brow_thick * (0.55 + 1.5 * np.sqrt(np.clip(along + 0.05, 0, 1)) * (1.08 - along))


def lid_xy(head: Head, side: int, upper: bool, along: ArrayLike) -> np.ndarray:
    """Edge of a lid from the inner (0) to the outer corner of the eye (1). Returns (n, 2)."""
    along = np.asarray(along, float)
    x = SIDE_SIGN[side] * (head.eye_x + head.eye_half_width * (2 * along - 1))
    corner_y = 2 - head.eye_slant * (along - 0.3) * 2
    opening = head.eye_open[side]
    # A closing upper lid comes down onto the lower one, which keeps its own slight bow.
    lower_bow = (2.2 + 0.12 * opening) * np.sin(np.pi * along) ** 0.9
    upper_bow = opening * np.sin(np.pi * along**0.9) ** 0.75 - lower_bow
    return np.stack([x, corner_y + (-upper_bow if upper else lower_bow)], axis=1)


def nose_xy(head: Head, part: str, along: ArrayLike) -> np.ndarray:
    """The ridge from between the eyes (0) to the tip (1), the base from wing (0) to wing (1), or the crease around the
    picture's right wing from above it (0) to below (1). Returns (n, 2).
    """
    along = np.asarray(along, float)
    if part == "wing":
        angle = np.radians(-105 + 195 * along)
        wing = head.nose_half_width
        return np.stack([wing * (0.70 + 0.36 * np.cos(angle)), head.nose_tip_y + 3.5 + 6.5 * np.sin(angle)], axis=1)
    if part == "ridge":
        return np.stack([np.zeros_like(along), -4 + (head.nose_tip_y + 4) * along], axis=1)
    across = 2 * along - 1
    return np.stack([0.86 * head.nose_half_width * across, head.nose_tip_y + 11.5 - 3.4 * across**2], axis=1)


def mouth_xy(head: Head, edge: str, across: ArrayLike) -> np.ndarray:
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

    def eye(side: int, first: int, upper: np.ndarray, last: int, lower: np.ndarray) -> list[np.ndarray]:
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


def imm58_xy(head: Head, brow_ends: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The 58 points of the IMM Face Database, as `ibug68_xy` gives the 68."""
    brow, edge = np.array([0, 0.2, 0.55, 0.8, 1]), np.array([0.5, -0.5, -0.5, -0.5, 0.2])
    upper, lower = np.array([1, 0.8, 0.53, 0.25, 0]), np.array([0.25, 0.53, 0.8])
    wing = nose_xy(head, "wing", [0.31, 0.62])
    bridge = [[0.49 * head.nose_half_width, 2.5], [0.64 * head.nose_half_width, head.nose_tip_y - 11]]
    nose = np.concatenate([bridge, wing])
    return np.concatenate([
        jaw_xy(head, np.linspace(0.155, 0.845, 13)),
        *(lid_xy(head, side, way, t) for side in (RIGHT, LEFT) for way, t in ((True, upper), (False, lower))),
        *(brow_xy(head, side, brow_ends[side] * brow, edge) for side in (RIGHT, LEFT)),
        mouth_xy(head, "outer_upper", [-1, -0.26, 0, 0.26, 1]), mouth_xy(head, "outer_lower", [0.37, 0, -0.37]),
        nose * [-1, 1], nose_xy(head, "base", [0.15, 0.5, 0.85]), nose[::-1],
    ])  # fmt: skip


def _upright(project: Project) -> np.ndarray:
    """Unit vectors (2, 2) of the head's right and down in the picture."""
    down = np.diff(project(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])), axis=0)[0]
    down /= np.linalg.norm(down)
    return np.array([[down[1], -down[0]], down])


def visible_brow(head: Head, side: int, project: Project) -> float:
    """How far along a brow (0..1) it can be seen before the temple turns away; annotators spread their points
    over that part.
    """
    along = np.linspace(0, 1, 101)
    line = brow_xy(head, side, along)
    line_px = project(np.column_stack([line, front_z(head, line[:, 0], line[:, 1])]))
    return float(along[np.argmax(SIDE_SIGN[side] * line_px @ _upright(project)[0])])


def visible_outline(head: Head, jaw: np.ndarray, project: Project) -> np.ndarray:
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
