"""From store crops to batches of what the model sees: geometry as one affine, so each picture is resampled once, then light.

The geometry is ours because the affine must be exact and shared with the points; the photometric part is albumentations.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.config import AugmentConfig
from foldmark.data.crops import warp
from foldmark.runs.run import Run
from foldmark.train.fold_data import FoldData

if TYPE_CHECKING:
    from albumentations import Compose

Size = tuple[int, int]  # width, height

# Share of turn, scale and shift that remains when a face is cropped again: the error of a first prediction.
REALIGNED_STRENGTH = 0.4


class Batch(NamedTuple):
    """crops uint8 (n, 1, height, width) and their points_crop float32 (n, k, 2) on the device, and the faces' rows (n,)."""

    crops: torch.Tensor
    points_crop: torch.Tensor
    rows: np.ndarray


def jitter_affine(
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


def build_photometric(config: AugmentConfig, size: Size) -> "Compose":
    """Brightness, contrast, blur, noise and hidden patches; nothing that moves a point."""
    # It would ask the package index for updates on import.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    patch = (max(1, min(size) // 10), max(2, min(size) // 3))
    steps = [
        albumentations.RandomBrightnessContrast(config.brightness, config.contrast, p=1),
        albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.5), p=config.blur),
        albumentations.GaussNoise(std_range=(0.01, 0.06), p=config.noise),
        albumentations.CoarseDropout((1, 1), patch, patch, fill="random_uniform", p=config.occlude),
    ]
    return albumentations.Compose([step for step in steps if step.p > 0])


class TrainingFaces:
    """A fold's augmented crops, as a torch data set: item (row, epoch) gives a uint8 crop (1, height, width) and its
    points_crop float32 (k, 2).

    The same seed, row and epoch give the same bits in any process and any order, which is what makes resuming exact. A share
    of the faces is roughly aligned to the mean face by their true points, as prediction does when it crops a face again.
    """

    def __init__(self, run: Run, data: FoldData) -> None:
        self.store, self.markup, self.config, self.data = run.store, run.faces.markup, run.config, data
        self.photometric = build_photometric(run.config.augment, run.config.crop.size)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        row, epoch = item
        size, points_store = self.config.crop.size, self.data.points_store[row]
        rng = np.random.default_rng([self.config.train.seed, epoch, row])
        if rng.random() < self.config.augment.realign:
            base, strength = geometry.align(points_store, self.data.mean_crop), REALIGNED_STRENGTH
        else:
            base, strength = geometry.centre_affine(self.store.size, size), 1.0
        affine, flips = jitter_affine(self.config.augment, base, size, rng, strength)
        crop = warp(self.store[row], affine, size)
        points_crop = geometry.apply(affine, points_store)
        if flips:
            points_crop = points_crop[self.markup.mirror]
        self.photometric.set_random_seed(int(rng.integers(2**31)))
        crop = self.photometric(image=crop[..., None])["image"][..., 0]
        return torch.from_numpy(np.ascontiguousarray(crop))[None], torch.from_numpy(points_crop.astype(np.float32))


def load_batches(faces: TrainingFaces, epoch: int, device: torch.device) -> Iterator[Batch]:
    """The epoch's batches, in an order that seed, fold and epoch decide."""
    from torch.utils.data import DataLoader  # slow to import

    train, data = faces.config.train, faces.data
    order = np.random.default_rng([train.seed, data.fold, epoch]).permutation(data.training_rows)
    rows = order[: len(order) // train.batch * train.batch].reshape(-1, train.batch)
    loader: DataLoader = DataLoader(
        faces,  # type: ignore[arg-type]  # a data set needs no more than its two methods
        batch_sampler=[[(int(row), epoch) for row in batch] for batch in rows],
        num_workers=count_workers(train.workers, device),
        pin_memory=device.type == "cuda",
    )
    for (crops, points_crop), batch_rows in zip(loader, rows, strict=True):
        yield Batch(crops.to(device, non_blocking=True), points_crop.to(device, non_blocking=True), batch_rows)


def count_workers(asked: int | None, device: torch.device) -> int:
    """How many loader processes: as many as asked for. On the CPU the model needs every core, and augmenting takes a few percent
    of its time, so no extra process pays."""
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else min(8, torch.get_num_threads())
