"""The affine algebra, in one place.

An affine is a float64 (2, 3) matrix; a batch of them is (n, 2, 3). Points are (..., 2) as x, y with pixel centres at
integers, so the first pixel spans -0.5 to 0.5 and a flip is x' = width - 1 - x. A name `a_to_b` maps points of frame a
to frame b. Frames: `px` the original picture, `store` the enlarged crop kept on disk, `crop` the model's input.
"""

import numpy as np


def apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., k, 2) through an affine (2, 3) or one affine a face (..., 2, 3)."""
    return points @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]


def compose(b_to_c: np.ndarray, a_to_b: np.ndarray) -> np.ndarray:
    """The affine that does `a_to_b` first and then `b_to_c`."""
    linear = b_to_c[..., :2] @ a_to_b[..., :2]
    shift = b_to_c[..., :2] @ a_to_b[..., 2:] + b_to_c[..., 2:]
    return np.concatenate([linear, shift], axis=-1)


def invert(affine: np.ndarray) -> np.ndarray:
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)


def scale_of(affine: np.ndarray) -> np.ndarray:
    """How many target pixels a pixel of the source is long (...,), the same in both directions or their geometric mean."""
    return np.sqrt(np.abs(np.linalg.det(affine[..., :2])))


def flip(width: float) -> np.ndarray:
    """The flip of a picture of that width. The caller swaps left and right points (`Markup.mirror`)."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def resize(scale_x: float, scale_y: float, left: float = 0.0, top: float = 0.0) -> np.ndarray:
    """Cut at pixel (left, top), then scale, with pixel edges (not centres) kept in line."""
    return np.array(
        [
            [scale_x, 0.0, (0.5 - left) * scale_x - 0.5],
            [0.0, scale_y, (0.5 - top) * scale_y - 0.5],
        ]
    )


def similarity(
    size_from: tuple[int, int],
    size_to: tuple[int, int],
    *,
    scale: float | np.ndarray = 1.0,
    degrees: float | np.ndarray = 0.0,
    shift: tuple[float, float] | np.ndarray = (0.0, 0.0),
) -> np.ndarray:
    """Turn and scale about the centre of a picture of `size_from` (width, height), then move that centre to the centre of
    one of `size_to` plus `shift` (x, y in target pixels). One (2, 3), or (n, 2, 3) for scales and degrees (n,) and shifts
    (n, 2)."""
    angle = np.deg2rad(degrees)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    centre_from, centre_to = (np.array(size_from) - 1) / 2, (np.array(size_to) - 1) / 2
    offset = centre_to + shift - linear @ centre_from
    return np.concatenate([linear, offset[..., None]], axis=-1)


def centre_affine(store_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Store crop to crop without augmentation: the middle of the store crop, pixel for pixel. Sizes are (width, height)."""
    return similarity(store_size, size)


def align(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity (..., 2, 3) that lays points (..., k, 2) onto target points (k, 2) with the least squared distance
    (Procrustes, without reflection)."""
    centre, target_centre = points.mean(axis=-2), target.mean(axis=0)
    x, y = np.moveaxis(points - centre[..., None, :], -1, 0)
    target_x, target_y = (target - target_centre).T
    spread = np.maximum((x * x + y * y).sum(axis=-1), 1e-12)
    cos = (x * target_x + y * target_y).sum(axis=-1) / spread
    sin = (x * target_y - y * target_x).sum(axis=-1) / spread
    linear = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    shift = target_centre - (linear @ centre[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], axis=-1)


def square_window(box_px: np.ndarray, enlargement: float, down: float = 0.0) -> tuple[int, int, int]:
    """Left, top and side in whole pixels of the square about a box (left, top, width, height), whose side is the longer
    side of the box times `enlargement`, its centre below the box's by `down` times that longer side. It may leave the
    picture: the cutter pads."""
    left, top, width, height = box_px
    longer = max(width, height)
    side = max(1, round(longer * enlargement))
    return round(left + (width - side) / 2), round(top + down * longer + (height - side) / 2), side


def box_window(box_px: np.ndarray, enlargement: float) -> tuple[int, int, int, int]:
    """Left, top, width and height in whole pixels of the box enlarged about its centre, its shape kept."""
    left, top, width, height = box_px
    wide, high = max(1, round(width * enlargement)), max(1, round(height * enlargement))
    return round(left + (width - wide) / 2), round(top + (height - high) / 2), wide, high
