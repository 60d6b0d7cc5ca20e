"""Batches made by the loader, on the CPU: each face is resampled once by its affine (cv2), then changed in
brightness, contrast, blur and noise (albumentations)."""

import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from foldmark.data.crops import warp
from foldmark.runs.run import Run
from foldmark.train.fold_data import FoldData
from foldmark.train.plan import Photometric, Plan, hash_noise, plan_epoch, plan_orders


class Batch(NamedTuple):
    """crops uint8 (n, 1, height, width), their points_crop float32 (n, k, 2) and the faces' rows (n,), all on the device."""

    crops: torch.Tensor
    points_crop: torch.Tensor
    rows: torch.Tensor


class TrainingFaces:
    """A fold's augmented crops, as a torch data set: item (row, epoch) gives a uint8 crop (1, height, width), its points_crop
    float32 (k, 2), and the row. Each loader process makes the plan of an epoch itself; it is the same."""

    def __init__(self, run: Run, data: FoldData) -> None:
        self.run, self.data = run, data
        self._planned: tuple[int, Plan] | None = None  # the last epoch and its plan

    @cached_property
    def photometric(self) -> "PhotometricTransform":
        return PhotometricTransform()

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch; items come epoch by epoch, so only the last one is kept."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, plan_epoch(self.run, self.data, epoch)
        return self._planned[1]

    def __len__(self) -> int:
        return len(self.data.store)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        row, epoch = item
        plan = self.plan(epoch)
        crop = warp(self.data.store[row], plan.store_to_crop[row], self.run.config.crop.size)
        crop = self.photometric.apply(crop, plan.photometric, row)
        return torch.from_numpy(np.ascontiguousarray(crop))[None], torch.from_numpy(plan.points_crop[row]), row


class PhotometricTransform:
    """The transforms of albumentations with the numbers of a plan."""

    def __init__(self) -> None:
        # It would ask the package index for updates on import.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations
        from albumentations.augmentations.blur.functional import create_gaussian_kernel_1d

        self.contrast, self.noise = albumentations.RandomBrightnessContrast(), albumentations.GaussNoise()
        self.blur, self.make_kernel = albumentations.GaussianBlur(), create_gaussian_kernel_1d
        self.make_patch = albumentations.CoarseDropout

    def apply(self, crop: np.ndarray, plan: Photometric, row: int) -> np.ndarray:
        """A crop uint8 (height, width) changed as the plan says for that row."""
        image: Any = self.contrast.apply(crop[..., None], plan.contrast[row], plan.brightness[row])
        if plan.sigma[row]:
            image = self.blur.apply(image, self.make_kernel(plan.sigma[row]))
        if plan.noise[row]:
            noise = hash_noise(torch.from_numpy(plan.seeds[row : row + 1]), crop.size).numpy().reshape(image.shape)
            image = self.noise.apply(image, noise * np.float32(plan.noise[row]))
        if plan.patches[row].any():
            image = self.make_patch(fill=plan.fill[row]).apply(image, plan.patches[row : row + 1], seed=0)
        return image[..., 0]


def load_batches(faces: TrainingFaces, first_step: int, device: torch.device) -> Iterator[Batch]:
    """The batches of all steps of a training from `first_step` on, in an order that seed, fold and epoch decide. The loader
    processes last for the whole training."""
    from torch.utils.data import DataLoader  # slow to import

    orders = plan_orders(faces.run, faces.data, first_step)
    loader: DataLoader = DataLoader(
        faces,  # type: ignore[arg-type]  # a data set needs no more than its two methods
        batch_sampler=([(row, epoch) for row in rows] for epoch, order in orders for rows in order.tolist()),
        num_workers=count_workers(faces.run.config.train.workers, device),
        pin_memory=device.type == "cuda",
    )
    for crops, points_crop, rows in loader:
        yield Batch(*(tensor.to(device, non_blocking=True) for tensor in (crops, points_crop, rows)))


def count_workers(asked: int | None, device: torch.device) -> int:
    """How many loader processes: as many as asked for. On the CPU the model needs every core, and augmenting takes a few percent
    of its time, so no extra process pays."""
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else min(8, torch.get_num_threads())
