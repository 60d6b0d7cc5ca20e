"""Surfaces lit and thrown onto a z-buffer."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from foldmark.synthetic.view import Light, View

OVERSAMPLING = 1.2

Texture = Callable[[np.ndarray], np.ndarray]


def _steps(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a grid (rows, columns, k) changes from column to column and from row to row."""
    across, down = (cv2.Sobel(grid, cv2.CV_32F, *way, ksize=1, scale=0.5) for way in ((1, 0), (0, 1)))
    return across, down


def normals_of(turned: np.ndarray) -> list[np.ndarray]:
    """The three components, each (rows, columns), of a surface grid's unit normals in the camera frame."""
    (ax, ay, az), (dx, dy, dz) = (cv2.split(step) for step in _steps(turned))
    normal = [ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx]
    length = np.sqrt(sum(part * part for part in normal)) + np.float32(1e-9)
    return [part / length for part in normal]


def shade(
    turned: np.ndarray,
    light: Light,
    *,
    soft: Sequence[float],
    shine: float,
    power: float = 14,
    tone: Sequence[float] | np.ndarray = (1, 1, 1),
    shadow: np.ndarray | float = 1,
    two_sided: bool = False,
) -> np.ndarray:
    """The light that leaves a surface grid of turned mm: RGB and highlight, float32 (rows, columns, 4).

    `soft` (3,) lets light bleed past the shadow's edge, as in skin; `shadow` (rows, columns) scales all of it, `tone`
    (3,) its colour.
    """
    normal = normals_of(turned)
    if two_sided:
        towards = np.where(normal[2] < 0, np.float32(-1), np.float32(1))
        normal = [part * towards for part in normal]
    halfway = light.direction + [0, 0, 1]
    halfway /= np.linalg.norm(halfway)
    facing, glance = (
        sum(part * float(share) for part, share in zip(normal, way, strict=True)) for way in (light.direction, halfway)
    )
    sky = np.float32(0.85) - np.float32(0.15) * normal[1]
    channels = [
        (sky * float(ambient * own) + np.clip((facing + bleed) * (1 / (1 + bleed)), 0, 1) * float(colour * own)) * shadow
        for ambient, colour, bleed, own in zip(light.ambient, light.colour, soft, tone, strict=True)
    ]
    return cv2.merge([*channels, np.maximum(glance, 0) ** power * shine * shadow])


class Canvas:
    """A z-buffer that surfaces are thrown onto sample by sample; only the samples that stay visible are then
    coloured.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.width, self.height = (int(np.ceil(side * OVERSAMPLING)) for side in size)
        self.nearest = np.zeros(self.width * self.height, np.int64)
        self.layers: list[tuple[int, tuple[int, int], np.ndarray, np.ndarray | None, Texture | None]] = []
        self.count = 1

    def add(
        self,
        view: View,
        turned: np.ndarray,
        light_map: np.ndarray,
        *,
        xy: np.ndarray | None = None,
        texture: Texture | None = None,
        exists: np.ndarray | None = None,
        solid: bool = False,
    ) -> None:
        """Draw a surface grid (rows, columns, 3) of turned mm.

        `light_map` (rows, columns, 4) comes from `shade`; `texture(xy)`, given parts of the map `xy` (rows, columns,
        2), returns the surface's own colour (..., 3) in 0..1. The surface has holes where the map `exists` (rows,
        columns) is not positive; a `solid` one has none and shows only the side that faces the camera.
        """
        flat = (view.flat(turned) * OVERSAMPLING).astype(np.float32)
        (ax, ay), (dx, dy) = (cv2.split(step) for step in _steps(flat))
        if solid:
            exists = ax * dy - ay * dx
        near = np.all((flat > -20) & (flat < [self.width + 20, self.height + 20]), axis=-1)
        if exists is not None:
            # One row and column more, to interpolate the edge.
            near &= cv2.dilate((exists > 0).astype(np.uint8), np.ones((3, 3))) > 0
        if not near.any():
            return
        used = tuple(slice(*(np.flatnonzero(near.any(axis=axis))[[0, -1]] + [0, 1])) for axis in (1, 0))
        if min(near[used].shape) < 2:
            return
        reach = [np.percentile(cv2.magnitude(*step)[near], 97) for step in ((dx, dy), (ax, ay))]
        rows, columns = (int(np.ceil(n * max(step, 1))) for n, step in zip(near[used].shape, reach, strict=True))
        light_map = light_map[used].astype(np.float32)
        xy, exists = (None if part is None else part[used].astype(np.float32) for part in (xy, exists))
        column, row, depth = (cv2.resize(part[used], (columns, rows)) for part in (*cv2.split(flat), turned[..., 2]))
        inside = (column > -0.5) & (column < self.width - 0.5) & (row > -0.5) & (row < self.height - 0.5)
        if exists is not None:
            inside &= cv2.resize(exists, (columns, rows)) > 0
        index = np.flatnonzero(inside)
        column, row, depth = (part.ravel()[index] for part in (column, row, depth))
        pixel = (row + np.float32(0.5)).astype(np.int32) * self.width + (column + np.float32(0.5)).astype(np.int32)
        key = ((depth + 500) * 1024).astype(np.int64) << 32 | (index + self.count)
        np.maximum.at(self.nearest, pixel, key)
        self.layers.append((self.count, (rows, columns), light_map, xy, texture))
        self.count += rows * columns

    def picture(self, background: np.ndarray) -> np.ndarray:
        """The drawing over a background of the canvas's size, float32 (height, width, 3) in 0..1."""
        chosen = self.nearest.astype(np.uint32).view(np.int32)
        rgba = np.zeros(len(chosen), np.uint32)
        for first, (rows, columns), light_map, xy, texture in self.layers:
            pixel = np.flatnonzero((chosen >= first) & (chosen < first + rows * columns))
            # cv2.remap wants its coordinates as a picture of limited height.
            sample = np.resize(chosen[pixel] - first, (len(pixel) // 512 + 1, 512))
            row = sample // np.int32(columns)
            column = sample - row * np.int32(columns)
            at_x, at_y = (
                (place.astype(np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
                for place, old, new in ((column, light_map.shape[1], columns), (row, light_map.shape[0], rows))
            )
            light = cv2.remap(light_map, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            colour: np.ndarray = cv2.cvtColor(light, cv2.COLOR_RGBA2RGB)
            if texture is not None and xy is not None:
                colour *= texture(cv2.remap(xy, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
            colour += cv2.cvtColor(light[..., 3], cv2.COLOR_GRAY2RGB)
            rgba[pixel] = cv2.cvtColor(to_bytes(colour), cv2.COLOR_RGB2RGBA).view(np.uint32).ravel()[: len(pixel)]
        # The median closes pinholes that the samples left.
        drawn = cv2.medianBlur(rgba.view(np.uint8).reshape(self.height, self.width, 4), 3)
        drawn = cv2.resize(drawn, self.size, interpolation=cv2.INTER_AREA)
        rest = cv2.cvtColor(255 - drawn[..., 3], cv2.COLOR_GRAY2RGB)
        return cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB) * np.float32(1 / 255) + rest * np.float32(1 / 255) * background


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """A float picture (H, W, 3) in 0..1, clipped and rounded to uint8."""
    white = (255.0,) * 4
    return cv2.multiply(picture, white, dtype=cv2.CV_8U)  # type: ignore[call-overload]  # as in paint.brush


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Noise of unit size on shape (rows, columns), drawn on a coarser grid of cells and enlarged."""
    small = rng.normal(0, 1, (max(cells[0], 2), max(cells[1], 2))).astype(np.float32)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
