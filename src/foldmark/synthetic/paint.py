"""Paint: the tones of skin, hair and irises (RGB in 0..1), and soft-edged shapes for float RGB pictures."""

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

Pair = Sequence[float] | np.ndarray  # x and y

SKIN_TONES = np.array(
    [
        [0.96, 0.82, 0.74],
        [0.93, 0.76, 0.66],
        [0.87, 0.69, 0.56],
        [0.78, 0.58, 0.44],
        [0.64, 0.45, 0.33],
        [0.47, 0.32, 0.23],
        [0.33, 0.22, 0.17],
    ]
)
HAIR_TONES = np.array(
    [
        [0.05, 0.04, 0.04],
        [0.10, 0.07, 0.05],
        [0.20, 0.12, 0.08],
        [0.34, 0.21, 0.12],
        [0.58, 0.43, 0.24],
        [0.76, 0.64, 0.42],
        [0.45, 0.17, 0.08],
        [0.60, 0.59, 0.57],
        [0.86, 0.85, 0.82],
    ]
)
IRIS_TONES = np.array([[0.20, 0.11, 0.06], [0.30, 0.18, 0.09], [0.38, 0.32, 0.18], [0.34, 0.44, 0.50], [0.30, 0.42, 0.36]])


def soft_polygon(size: tuple[int, int], polygon_px: ArrayLike, soft: float) -> tuple[tuple[slice, slice], np.ndarray]:
    """A polygon (n, 2) with an edge blurred by `soft` pixels: the window of a picture of size (width, height) that it
    touches, empty where it lies outside, and its mask (h, w) in 0..1 there.
    """
    polygon = np.asarray(polygon_px, np.float32)
    margin = int(3 * soft) + 2
    (left, top), (right, bottom) = polygon.min(axis=0).tolist(), polygon.max(axis=0).tolist()
    left, top = max(math.floor(left) - margin, 0), max(math.floor(top) - margin, 0)
    width, height = min(math.ceil(right) + margin + 1, size[0]) - left, min(math.ceil(bottom) + margin + 1, size[1]) - top
    if width <= 0 or height <= 0:
        return np.s_[0:0, 0:0], np.zeros((0, 0), np.float32)
    # A very soft mask is drawn small and enlarged: the same picture, many times faster.
    shrink = max(1, int(soft / 1.5))
    mask = np.zeros((-(-height // shrink), -(-width // shrink)), np.float32)
    corners = (polygon - np.array([left - 0.5, top - 0.5], np.float32)) * (16 / shrink) - 8
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), soft / shrink)
    if shrink > 1:
        mask = cv2.resize(mask, None, fx=shrink, fy=shrink)[:height, :width]
    return np.s_[top : top + height, left : left + width], mask


def brush(picture: np.ndarray, polygon_px: ArrayLike, colour: Iterable[float], strength: float = 1.0, soft: float = 0.6) -> None:
    """Blend a polygon (n, 2) with an edge blurred by `soft` pixels into a float32 picture (H, W, 3), in place."""
    window, mask = soft_polygon(picture.shape[1::-1], polygon_px, soft)
    if mask.size:
        part = picture[window]
        tone = (*map(float, colour), 0.0)
        change = cv2.subtract(tone, part)  # type: ignore[call-overload]  # its types leave out that it takes scalars
        part += cv2.multiply(change, cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB), scale=strength)


def ellipse(
    centre: Sequence[float] | np.ndarray, radii: Sequence[float] | np.ndarray, angle: float = 0.0, count: int = 24
) -> np.ndarray:
    """Polygon (count, 2) of an ellipse turned by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([radii[0] * np.cos(t), radii[1] * np.sin(t)], axis=1) @ np.array([[cos, sin], [-sin, cos]]) + centre


def ribbon(line: ArrayLike, width: ArrayLike) -> np.ndarray:
    """Polygon around a line (n, 2) of the given width (scalar or (n,))."""
    middle = np.asarray(line, float)
    tangent = np.gradient(middle, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    half = 0.5 * np.broadcast_to(width, len(middle))[:, None] * normal
    return np.concatenate([middle + half, (middle - half)[::-1]])
