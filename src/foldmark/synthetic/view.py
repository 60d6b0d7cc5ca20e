"""Pose, camera and light, and where the landmarks land in the picture."""

from dataclasses import dataclass, replace

import numpy as np

from foldmark.core.markup import IBUG68, IMM58, Markup
from foldmark.synthetic import curves
from foldmark.synthetic.head import LEFT, RIGHT, Head, front_z


@dataclass(frozen=True)
class View:
    """A camera: turns head millimetres about `pivot`, then projects with perspective.

    The camera stands `distance` mm away; `px_per_mm` holds in the pivot's plane.
    """

    rotation: np.ndarray
    body_rotation: np.ndarray
    pivot: np.ndarray
    px_per_mm: float
    centre_px: np.ndarray
    distance: float

    def turned(self, points: np.ndarray, body: bool = False) -> np.ndarray:
        rotation = self.body_rotation if body else self.rotation
        return (points - self.pivot.astype(points.dtype)) @ rotation.T.astype(points.dtype)

    def flat(self, turned: np.ndarray) -> np.ndarray:
        """Turned points (..., 3) in mm to (..., 2) pixels."""
        return self.centre_px + self.px_per_mm * turned[..., :2] * (self.distance / (self.distance - turned[..., 2:]))

    def project(self, points: np.ndarray) -> np.ndarray:
        return self.flat(self.turned(points))


@dataclass(frozen=True)
class Light:
    direction: np.ndarray  # from the head towards the light, camera frame
    colour: np.ndarray
    ambient: np.ndarray


def rotation_matrix(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Angles in radians; yaw > 0 turns the nose to the picture's right, pitch > 0 lowers it, roll > 0 turns
    clockwise.
    """
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def light_from(azimuth: float, height: float, contrast: float, rng: np.random.Generator) -> Light:
    """A slightly warm lamp at these angles in degrees (azimuth > 0 to the picture's right) and a slightly cold sky;
    contrast in 0..1 is the lamp's share.
    """
    azimuth, height = np.radians([azimuth, height])
    direction = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)])
    return Light(
        direction, contrast * rng.normal([1.06, 1.0, 0.94], 0.03), (1.02 - contrast) * rng.normal([0.97, 1.0, 1.04], 0.03)
    )


def sample_light(rng: np.random.Generator) -> Light:
    return light_from(rng.normal(0, 38), rng.uniform(-5, 60), rng.uniform(0.35, 0.8), rng)


def sample_view(rng: np.random.Generator, head: Head, size: tuple[int, int]) -> View:
    """A pose and camera that put the face somewhere near the middle of a picture of size (width, height)."""
    yaw = rng.uniform(-40, 40) if rng.random() < 0.35 else np.clip(rng.normal(0, 14), -40, 40)
    pitch = np.clip(rng.normal(0, 8), -20, 20)
    roll = np.clip(rng.normal(0, 7), -20, 20)
    angles = np.radians([yaw, pitch, roll])
    box_px = min(rng.uniform(110, 215), 0.62 * min(size))
    view = View(
        rotation=rotation_matrix(*angles),
        body_rotation=rotation_matrix(*(angles * [0.35, 0.1, 0.2])),
        pivot=np.array([0, 45.0, -15.0]),
        px_per_mm=box_px / 141,
        centre_px=np.zeros(2),
        distance=rng.uniform(700, 1800),
    )
    # Where the middle of the face is to lie; a few faces stand so near an edge that their box leaves the picture.
    room = np.array(size) - 1.06 * box_px
    target = np.array(size) / 2 + rng.uniform(-0.4, 0.4, 2) * room * [1, 0.6] + [0, 0.02 * size[1]]
    if rng.random() < 0.04:
        target[0] = rng.choice([0.42 * box_px, size[0] - 0.42 * box_px])
    middle = view.project(np.array([0.0, 0.55 * head.mouth_y, 70.0]))
    return replace(view, centre_px=target - middle)


def landmarks_px(head: Head, view: View, markup: Markup = IBUG68) -> np.ndarray:
    """The points of a markup (n, 2) in pixels; those of the outline and the brows on the part of the face that can be
    seen.
    """
    left, right = (curves.visible_brow(head, side, view.project) for side in (LEFT, RIGHT))
    xy = {IBUG68.name: curves.ibug68_xy, IMM58.name: curves.imm58_xy}[markup.name](head, (left, right))
    points = view.project(np.column_stack([xy, front_z(head, xy[:, 0], xy[:, 1])]))
    jaw = markup.regions["jaw"]
    points[jaw] = curves.visible_outline(head, xy[jaw], view.project)
    return points
