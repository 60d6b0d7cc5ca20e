"""Pose, camera and light, and where the landmarks land in the picture."""

from dataclasses import dataclass

import numpy as np

from foldmark.drawn import head as head_model
from foldmark.drawn.head import Head


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

    def turned(self, points, body: bool = False) -> np.ndarray:
        return (points - self.pivot) @ (self.body_rotation if body else self.rotation).T

    def flat(self, turned) -> np.ndarray:
        """Turned points (..., 3) in mm to (..., 2) pixels."""
        return self.centre_px + self.px_per_mm * turned[..., :2] * (self.distance / (self.distance - turned[..., 2:]))

    def project(self, points) -> np.ndarray:
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
    return View(view.rotation, view.body_rotation, view.pivot, view.px_per_mm, target - middle, view.distance)


def landmarks_px(head: Head, view: View) -> np.ndarray:
    """The 68 points (68, 2) in pixels; those of the outline and the brows on the part of the face that can be seen."""
    brow_ends = tuple(head_model.visible_brow(head, side, view.project) for side in (head_model.LEFT, head_model.RIGHT))
    xy = head_model.ibug68_xy(head, brow_ends)
    points = view.project(np.concatenate([xy, head_model.front_z(head, xy[:, 0], xy[:, 1])[:, None]], axis=1))
    points[:17] = head_model.visible_outline(head, xy[:17], view.project)
    return points
