"""Batches made on the device: the crop store lies there, and a few tensor operations cut and augment a whole batch, without
Python for each face.

The numbers come from the plan, as those of the loader do; the crops differ from its by rounding alone.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

from foldmark.data.crops import Crops, CropStore
from foldmark.models.resample import find_sampling, resample
from foldmark.runs.run import Run
from foldmark.train.batches import Batch
from foldmark.train.fold_data import FoldData
from foldmark.train.plan import BLUR_SIGMA, Plan, hash_noise, plan_epoch, plan_orders

# Share of the device's free memory that the store may take; else it is streamed in chunks of this many bytes.
STORE_SHARE, CHUNK_BYTES = 0.25, 256 * 2**20
BLUR_REACH = int(BLUR_SIGMA[1] * 3.5)


class PlanOnDevice(NamedTuple):
    """A plan's numbers as tensors, a row a face."""

    sampling: torch.Tensor  # (n, 2, 3), see `find_sampling`
    points_crop: torch.Tensor  # (n, k, 2)
    photometric: torch.Tensor  # (n, 9) float32: contrast, brightness, sigma, noise, patch, fill
    seeds: torch.Tensor  # (n,) int64

    def take(self, rows: torch.Tensor) -> "PlanOnDevice":
        return PlanOnDevice(*(numbers[rows] for numbers in self))


def put_plan(plan: Plan, store_size: tuple[int, int], size: tuple[int, int], device: torch.device) -> PlanOnDevice:
    """The plan on the device."""
    changes = plan.photometric
    numbers = [changes.contrast, changes.brightness, changes.sigma, changes.noise, *changes.patches.T, changes.fill]
    arrays = (plan.points_crop, np.stack(numbers, axis=1).astype(np.float32), changes.seeds)
    tensors = (find_sampling(plan.store_to_crop, store_size, size), *map(torch.from_numpy, arrays))
    return PlanOnDevice(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def cut_batch(store: torch.Tensor, rows: torch.Tensor, plan: PlanOnDevice, size: tuple[int, int]) -> torch.Tensor:
    """Crops uint8 (n, 1, height, width) of a size (width, height). store: uint8 (m, 1, height, width), of which `rows` (n,) are
    cut; plan: the numbers of these n faces."""
    return apply_photometric(resample(store[rows], plan.sampling, size), plan.photometric, plan.seeds)


def apply_photometric(crops: torch.Tensor, numbers: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Contrast, brightness, blur, noise and a hidden patch, as the plan says, on crops float32 (n, 1, height, width); uint8."""
    contrast, brightness, sigma, noise, left, top, right, bottom, fill = numbers[:, :, None, None, None].unbind(1)
    height, width = crops.shape[2:]
    crops = (crops * contrast + brightness).clamp(0, 255)
    crops = blur_crops(crops, sigma.flatten())
    crops = (crops + noise * hash_noise(seeds, height * width).view_as(crops)).clamp(0, 255)
    x, y = torch.arange(width, device=crops.device), torch.arange(height, device=crops.device)[:, None]
    hidden = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return torch.where(hidden, fill, crops).round().to(torch.uint8)


def blur_crops(crops: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of each crop (n, 1, height, width) with its own sigma (n,), 0 for none; at the edges mirrored."""
    taps = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=crops.device)
    kernels = torch.exp(-0.5 * (taps / sigma.clamp(min=1e-3)[:, None]) ** 2)
    # The kernel ends where that of albumentations does.
    kernels = kernels * (taps.abs() <= (sigma * 3.5).floor()[:, None])
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    count = len(crops)
    planes = pad(crops, [BLUR_REACH] * 4, mode="reflect").transpose(0, 1)
    planes = conv2d(planes, kernels.view(count, 1, 1, -1), groups=count)
    return conv2d(planes, kernels.view(count, 1, -1, 1), groups=count).transpose(0, 1)


def cut_batches(
    run: Run, data: FoldData, first_step: int, device: torch.device, chunk_bytes: int | None = None
) -> Iterator[Batch]:
    """The batches of all steps of a training from `first_step` on, in the order of the loader's. The store lies on the device, or
    is streamed in chunks of so many bytes; None: as its memory allows."""
    size, train = run.config.crop.size, run.config.train
    # The next epoch's plan and the next chunk are made while the device works.
    with ThreadPoolExecutor(2) as background:
        store = StoreOnDevice(data.store, device, chunk_bytes, background)
        planned = background.submit(plan_epoch, run, data, first_step // data.count_steps(train.batch))
        for epoch, order in plan_orders(run, data, first_step):
            plan = put_plan(planned.result(), data.store.size, size, device)
            if epoch + 1 < train.epochs:
                planned = background.submit(plan_epoch, run, data, epoch + 1)
            for crops, indices, rows in store.chunks(order):
                for index, row in zip(indices, rows, strict=True):
                    numbers = plan.take(row)
                    yield Batch(cut_batch(crops, index, numbers, size), numbers.points_crop, row)


class StoreOnDevice:
    """The crops of a store on the device: all of them, or in chunks where its memory does not hold them."""

    def __init__(
        self, store: CropStore | Crops, device: torch.device, chunk_bytes: int | None, background: ThreadPoolExecutor
    ) -> None:
        self.store, self.device, self.background = store, device, background
        self.crop_bytes = store.size[0] * store.size[1]
        fits = chunk_bytes is None and _fits(len(store) * self.crop_bytes, device)
        self.chunk_bytes = chunk_bytes or CHUNK_BYTES
        self.whole = read_crops(store, np.arange(len(store))).to(device) if fits else None

    def chunks(self, order: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For the rows (steps, batch) of an epoch, or a chunk of its steps at a time: the crops, the indices of these rows in
        them, and the rows."""
        if self.whole is not None:
            rows = torch.from_numpy(order).to(self.device)
            yield self.whole, rows, rows
            return
        steps = max(1, self.chunk_bytes // (self.crop_bytes * order.shape[1]))
        parts = [order[start : start + steps] for start in range(0, len(order), steps)]
        reading = [self.background.submit(read_crops, self.store, part.ravel()) for part in parts[:1]]
        for number, part in enumerate(parts):
            crops = reading.pop().result().to(self.device)
            reading += [self.background.submit(read_crops, self.store, later.ravel()) for later in parts[number + 1 : number + 2]]
            indices = torch.arange(part.size, device=self.device).view(part.shape)
            yield crops, indices, torch.from_numpy(part).to(self.device)


def read_crops(store: CropStore | Crops, rows: np.ndarray) -> torch.Tensor:
    """The store crops uint8 (n, 1, height, width) of these rows."""
    return torch.from_numpy(np.stack([store[row] for row in rows]))[:, None]


def _fits(count: int, device: torch.device) -> bool:
    """Whether so many bytes are a small part of the device's free memory. Other devices than CUDA share the machine's, and do not
    say how much is free."""
    return count < (STORE_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 * CHUNK_BYTES)
