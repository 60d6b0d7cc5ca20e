"""Batches made by the loader, on the CPU: each face is resampled once by its affine (cv2), then lit (albumentations)."""

import os
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from foldmark.data.crops import warp
from foldmark.runs.run import Run
from foldmark.train.fold_data import FoldData
from foldmark.train.plan import Light, Plan, hash_noise, plan_epoch, plan_order


class Batch(NamedTuple):
    """crops uint8 (n, 1, height, width), their points_crop float32 (n, k, 2) and the faces' rows (n,), all on the device."""

    crops: torch.Tensor
    points_crop: torch.Tensor
    rows: torch.Tensor


class TrainingFaces:
    """A fold's augmented crops, as a torch data set: item (row, epoch) gives a uint8 crop (1, height, width), its points_crop
    float32 (k, 2), and the row."""

    def __init__(self, run: Run, data: FoldData) -> None:
        self.run, self.data = run, data
        self.plan = lru_cache(2)(lambda epoch: plan_epoch(run, data, epoch))

    def __getstate__(self) -> dict:
        """Each loader process makes the plan itself; it is the same."""
        return {"run": self.run, "data": self.data}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def lighter(self) -> "Lighter":
        return Lighter()

    def __len__(self) -> int:
        return len(self.run.store)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        row, epoch = item
        plan: Plan = self.plan(epoch)
        crop = warp(self.run.store[row], plan.store_to_crop[row], self.run.config.crop.size)
        crop = self.lighter.light(crop, plan.light, row)
        return torch.from_numpy(np.ascontiguousarray(crop))[None], torch.from_numpy(plan.points_crop[row]), row


class Lighter:
    """Albumentations with the numbers of a plan."""

    def __init__(self) -> None:
        # It would ask the package index for updates on import.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations
        from albumentations.augmentations.blur.functional import create_gaussian_kernel_1d

        self.contrast, self.blur, self.kernel = (
            albumentations.RandomBrightnessContrast(),
            albumentations.GaussianBlur(),
            create_gaussian_kernel_1d,
        )
        self.noise, self.patch = albumentations.GaussNoise(), albumentations.CoarseDropout

    def light(self, crop: np.ndarray, light: Light, row: int) -> np.ndarray:
        """A crop uint8 (height, width) lit as the plan says for that row."""
        image: Any = self.contrast.apply(crop[..., None], light.contrast[row], light.brightness[row])
        if light.sigma[row]:
            image = self.blur.apply(image, self.kernel(light.sigma[row]))
        if light.noise[row]:
            noise = hash_noise(torch.from_numpy(light.seeds[row : row + 1]), crop.size).numpy().reshape(image.shape)
            image = self.noise.apply(image, noise * np.float32(light.noise[row]))
        if light.patches[row].any():
            patch = self.patch(fill=light.fill[row])
            image = patch.apply(image, light.patches[row : row + 1], seed=0)
        return image[..., 0]


def load_batches(faces: TrainingFaces, first_step: int, device: torch.device) -> Iterator[Batch]:
    """The batches of all steps of a training from `first_step` on, in an order that seed, fold and epoch decide. The loader
    processes last as long."""
    from torch.utils.data import DataLoader  # slow to import

    loader: DataLoader = DataLoader(
        faces,  # type: ignore[arg-type]  # a data set needs no more than its two methods
        batch_sampler=_list_items(faces.run, faces.data, first_step),
        num_workers=count_workers(faces.run.config.train.workers, device),
        pin_memory=device.type == "cuda",
    )
    for crops, points_crop, rows in loader:
        yield Batch(*(tensor.to(device, non_blocking=True) for tensor in (crops, points_crop, rows)))


def _list_items(run: Run, data: FoldData, first_step: int) -> Iterator[list[tuple[int, int]]]:
    steps = data.count_steps(run.config.train.batch)
    for epoch in range(first_step // steps, run.config.train.epochs):
        order = plan_order(run, data, epoch).tolist()
        for rows in order[first_step - epoch * steps if epoch == first_step // steps else 0 :]:
            yield [(row, epoch) for row in rows]


def count_workers(asked: int | None, device: torch.device) -> int:
    """How many loader processes: as many as asked for. On the CPU the model needs every core, and augmenting takes a few percent
    of its time, so no extra process pays."""
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else min(8, torch.get_num_threads())
