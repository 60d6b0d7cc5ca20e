"""Crops cut on the device: the same affines as cv2 takes, as tensor operations."""

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from foldmark.core import geometry


def find_sampling(store_to_crop: np.ndarray, store_size: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """Where crop pixels lie in the store crop, as affines (n, 2, 3) float32 in the frame of `grid_sample`: -1 and 1 are the
    centres of the outer pixels."""
    store, crop = ((np.array(one) - 1) / 2 for one in (store_size, size))
    to_grid = np.column_stack([np.diag(1 / store), [-1, -1]])
    from_grid = np.column_stack([np.diag(crop), crop])
    sampling = geometry.compose(geometry.compose(to_grid, geometry.invert(store_to_crop)), from_grid)
    return torch.from_numpy(sampling.astype(np.float32))


def resample(store_crops: torch.Tensor, sampling: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Crops float32 (n, 1, height, width) of a size (width, height) from store crops uint8 (n, 1, h, w), linearly; beyond their
    edges the edge pixels repeat."""
    grid = affine_grid(sampling, [len(sampling), 1, size[1], size[0]], align_corners=True)
    return grid_sample(store_crops.float(), grid, padding_mode="border", align_corners=True)
