"""Surfaces thrown onto a z-buffer and lit."""

import cv2
import numpy as np

from foldmark.drawn.view import Light, View

OVERSAMPLING = 1.2


def normals_of(turned: np.ndarray) -> np.ndarray:
    """Unit normals (rows, columns, 3) of a surface grid in the camera frame."""
    down, across = np.gradient(turned, axis=0), np.gradient(turned, axis=1)
    normal = np.cross(across, down)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def shade(normal: np.ndarray, light: Light, soft, shine: float, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse light (rows, columns, 3) and highlight (rows, columns, 1); `soft` (3,) lets light bleed past the
    shadow's edge, as in skin.
    """
    facing = normal @ light.direction
    diffuse = np.clip((facing[..., None] + soft) / (1 + np.asarray(soft)), 0, 1)
    halfway = light.direction + [0, 0, 1]
    glance = np.clip(normal @ (halfway / np.linalg.norm(halfway)), 0, 1) ** power
    sky = 0.85 - 0.15 * normal[..., 1:2]
    return light.ambient * sky + light.colour * diffuse, shine * glance[..., None]


class Canvas:
    """A z-buffer that surfaces are thrown onto sample by sample; only the samples that stay visible are then
    coloured.
    """

    def __init__(self, size: tuple[int, int]):
        self.width, self.height = (int(np.ceil(side * OVERSAMPLING)) for side in size)
        self.nearest = np.zeros(self.width * self.height, np.int64)
        self.layers = []
        self.count = 1

    def add(self, view: View, turned: np.ndarray, light_map: np.ndarray, texture=None, exists=None) -> None:
        """Draw a surface grid (rows, columns, 3) of turned mm.

        `light_map` (rows, columns, 4 or more) is light (RGB) and highlight, then whatever `texture(values)` reads
        to give the surface's own colour (..., 3) in 0..1. The surface has holes where the map `exists` (rows,
        columns) is not positive.
        """
        flat = view.flat(turned) * OVERSAMPLING
        near = np.all((flat > -20) & (flat < [self.width + 20, self.height + 20]), axis=-1)
        if not near.any():
            return
        used = tuple(slice(*(np.flatnonzero(near.any(axis=axis))[[0, -1]] + [0, 1])) for axis in (1, 0))
        if min(flat[used].shape[:2]) < 2:
            return
        flat, depth, light_map = flat[used], turned[used][..., 2], light_map[used].astype(np.float32)
        step = [np.percentile(np.linalg.norm(np.diff(flat, axis=axis), axis=-1), 92) for axis in (0, 1)]
        rows, columns = (int(np.ceil(n * max(s, 1))) for n, s in zip(flat.shape[:2], step, strict=True))
        maps = [flat[..., 0], flat[..., 1], depth] + ([] if exists is None else [exists[used]])
        column, row, depth, *holes = (cv2.resize(part.astype(np.float32), (columns, rows)) for part in maps)
        inside = (column > -0.5) & (column < self.width - 0.5) & (row > -0.5) & (row < self.height - 0.5)
        if holes:
            inside &= holes[0] > 0
        index = np.flatnonzero(inside)
        pixel = (row.ravel()[index] + 0.5).astype(np.int32) * self.width + (column.ravel()[index] + 0.5).astype(np.int32)
        key = ((depth.ravel()[index] + 500) * 1024).astype(np.int64) << 32 | (index + self.count)
        np.maximum.at(self.nearest, pixel, key)
        self.layers.append((self.count, (rows, columns), light_map, texture))
        self.count += rows * columns

    def picture(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Premultiplied colour (height, width, 3) in 0..1 and coverage (height, width, 1)."""
        chosen = (self.nearest & (2**32 - 1)).astype(np.int32)
        rgba = np.zeros((len(chosen), 4), np.uint8)
        for first, (rows, columns), light_map, texture in self.layers:
            pixel = np.flatnonzero((chosen >= first) & (chosen < first + rows * columns))
            # cv2.remap wants its coordinates as a picture of limited height.
            sample = np.resize(chosen[pixel] - first, (len(pixel) // 512 + 1, 512))
            row, column = np.divmod(sample, np.int32(columns))
            at_row = (row.astype(np.float32) + 0.5) * np.float32(light_map.shape[0] / rows) - 0.5
            at_column = (column.astype(np.float32) + 0.5) * np.float32(light_map.shape[1] / columns) - 0.5
            parts = [light_map[..., :4], light_map[..., 4:]] if light_map.shape[-1] > 4 else [light_map]
            values = [cv2.remap(part, at_column, at_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in parts]
            colour = values[0][..., :3]
            if texture:
                colour = colour * texture(values[1])
            colour = np.clip((colour + values[0][..., 3:]) * 255, 0, 255).astype(np.uint8)
            rgba[pixel, :3] = colour.reshape(-1, 3)[: len(pixel)]
            rgba[pixel, 3] = 255
        # The median closes pinholes that the samples left.
        rgba = cv2.medianBlur(rgba.reshape(self.height, self.width, 4), 3)
        rgba = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return rgba[..., :3], rgba[..., 3:]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Noise of unit size on shape (rows, columns), drawn on a coarser grid of cells and enlarged."""
    small = rng.normal(0, 1, (max(cells[0], 2), max(cells[1], 2))).astype(np.float32)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
