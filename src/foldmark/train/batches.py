"""From a store crop to what the net sees: geometry as one affine, so each picture is resampled once, then light.

The geometry is ours because the affine must be exact and shared with the points; the photometric part is albumentations.
"""

import os

# It would ask the package index for updates on import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.config import AugmentConfig
from foldmark.core.markup import Markup
from foldmark.data.crops import CropStore, warp

Size = tuple[int, int]  # width, height

# Of the turn, scale and shift that a face keeps when it is cut anew: what a first look gets wrong.
REALIGNED_STRENGTH = 0.4


def random_affine(
    config: AugmentConfig, store_to_crop: np.ndarray, size: Size, rng: np.random.Generator, strength: float = 1.0
) -> tuple[np.ndarray, bool]:
    """The affine `store_to_crop` with random turn, scale, shift and flip after it, and whether it flips (then the caller
    swaps the points)."""
    jitter = geometry.similarity(
        size,
        size,
        scale=float(np.exp(strength * rng.uniform(-1, 1) * np.log1p(config.scale))),
        degrees=strength * rng.uniform(-1, 1) * config.rotate,
        shift=tuple(strength * rng.uniform(-1, 1, 2) * config.shift * size),
    )
    flips = bool(rng.random() < config.flip)
    if flips:
        store_to_crop = geometry.compose(geometry.flip(size[0]), store_to_crop)
    return geometry.compose(jitter, store_to_crop), flips


def photometric(config: AugmentConfig, size: Size) -> albumentations.Compose:
    """Brightness, contrast, blur, noise and hidden patches; nothing that moves a point."""
    patch = (max(1, min(size) // 10), max(2, min(size) // 3))
    steps = [
        albumentations.RandomBrightnessContrast(config.brightness, config.contrast, p=1),
        albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.5), p=config.blur),
        albumentations.GaussNoise(std_range=(0.01, 0.06), p=config.noise),
        albumentations.CoarseDropout((1, 1), patch, patch, fill="random_uniform", p=config.occlude),
    ]
    return albumentations.Compose([step for step in steps if step.p > 0])


class TrainingFaces(torch.utils.data.Dataset):
    """Augmented crops: item (row, epoch) gives a uint8 crop (1, height, width) and its points_crop float32 (k, 2).

    The same seed, row and epoch give the same bits in any process and any order, which is what makes resuming exact.
    points_store: (n, k, 2) in the frame of the store crops. mean_crop: (k, 2) mean face of the plain crops; a share of the
    faces is laid onto it by their true points, roughly, as prediction does when it cuts a face anew.
    """

    def __init__(
        self,
        store: CropStore,
        points_store: np.ndarray,
        mean_crop: np.ndarray,
        markup: Markup,
        config: AugmentConfig,
        size: Size,
        seed: int,
    ) -> None:
        self.store, self.points_store, self.mean_crop, self.markup = store, points_store, mean_crop, markup
        self.config, self.size, self.seed = config, size, seed
        self.photometric = photometric(config, size)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        row, epoch = item
        rng = np.random.default_rng([self.seed, epoch, row])
        if rng.random() < self.config.realign:
            base, strength = geometry.align(self.points_store[row], self.mean_crop), REALIGNED_STRENGTH
        else:
            base, strength = geometry.centre_affine(self.store.size, self.size), 1.0
        affine, flips = random_affine(self.config, base, self.size, rng, strength)
        crop = warp(self.store[row], affine, self.size)
        points_crop = geometry.apply(affine, self.points_store[row])
        if flips:
            points_crop = points_crop[self.markup.mirror]
        self.photometric.set_random_seed(int(rng.integers(2**31)))
        crop = self.photometric(image=crop[..., None])["image"][..., 0]
        return torch.from_numpy(np.ascontiguousarray(crop))[None], torch.from_numpy(points_crop.astype(np.float32))
