"""What augmentation does to each face in an epoch: all random numbers, drawn for all faces at once.

They depend on seed and epoch alone, so that resuming is exact and every way to compute the crops gets the same numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.config import AugmentConfig
from foldmark.runs.run import Run
from foldmark.train.fold_data import FoldData

BLUR_SIGMA = (0.3, 1.5)  # crop pixels
NOISE_STD = (0.01, 0.06)  # of full white

# The draws, each with a random stream of its own, so that a setting changes no other draw.
ORDER, GEOMETRY, BRIGHTNESS, BLUR, NOISE, PATCH = range(6)


@dataclass(frozen=True)
class Photometric:
    """Photometric augmentation of n crops, in this order; nothing here moves a point."""

    contrast: np.ndarray  # (n,) factor
    brightness: np.ndarray  # (n,) grey levels added
    sigma: np.ndarray  # (n,) of the Gaussian blur in crop pixels; 0: none
    noise: np.ndarray  # (n,) standard deviation of the noise in grey levels; 0: none
    seeds: np.ndarray  # (n,) int64, of the noise
    patches: np.ndarray  # (n, 4) left, top, right and bottom of the hidden patch in crop pixels; all 0: none
    fill: np.ndarray  # (n,) grey level of the patch


@dataclass(frozen=True)
class Plan:
    """An epoch's augmentation of all n faces of a run, by their rows."""

    store_to_crop: np.ndarray  # (n, 2, 3)
    points_crop: np.ndarray  # (n, k, 2) float32
    photometric: Photometric


def plan_order(run: Run, data: FoldData, epoch: int) -> np.ndarray:
    """The rows (steps, batch) of the fold's training faces in the order of this epoch; what fills no batch is left out."""
    batch = run.config.train.batch
    order = np.random.default_rng([run.config.train.seed, epoch, ORDER, data.seed]).permutation(data.training_rows)
    return order[: len(order) // batch * batch].reshape(-1, batch)


def plan_orders(run: Run, data: FoldData, first_step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each epoch of a training from `first_step` on, with the rows (steps, batch) of the steps that are left of it."""
    steps = data.count_steps(run.config.train.batch)
    for epoch in range(first_step // steps, run.config.train.epochs):
        yield epoch, plan_order(run, data, epoch)[max(0, first_step - epoch * steps) :]


def plan_epoch(run: Run, data: FoldData, epoch: int) -> Plan:
    """The augmentation of all faces of a fold's data in this epoch. A share of them is roughly aligned to the mean face by their
    true points, as prediction does when it crops a face again."""
    config, size, count = run.config.augment, run.config.crop.size, len(data.store)
    rng = np.random.default_rng([run.config.train.seed, epoch, GEOMETRY])
    aligned = rng.random(count) < config.realign
    centre = np.broadcast_to(geometry.centre_affine(data.store.size, size), (count, 2, 3))
    base = np.where(aligned[:, None, None], geometry.align(data.points_store, data.mean_crop), centre)
    affine, flips = jitter_affines(config, base, size, rng, np.where(aligned, config.realign_jitter, 1.0))
    points_crop = geometry.apply(affine, data.points_store)
    points_crop[flips] = points_crop[flips][:, run.faces.markup.mirror]
    photometric = plan_photometric(config, size, count, [run.config.train.seed, epoch])
    return Plan(affine, points_crop.astype(np.float32), photometric)


def jitter_affines(
    config: AugmentConfig, store_to_crop: np.ndarray, size: tuple[int, int], rng: np.random.Generator, strength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Affines `store_to_crop` (n, 2, 3) with a random flip, turn, scale and shift after each, the last three by a strength (n,);
    and which of them flip (n,), whose points the caller swaps."""
    scale, degrees, *shift = strength * rng.uniform(-1, 1, (4, len(strength)))
    flips = rng.random(len(strength)) < config.flip
    jitter = geometry.similarity(
        size,
        size,
        scale=np.exp(scale * np.log1p(config.scale)),
        degrees=degrees * config.rotate,
        shift=np.stack(shift, axis=1) * config.shift * size,
    )
    flipped = geometry.compose(geometry.flip(size[0]), store_to_crop)
    return geometry.compose(jitter, np.where(flips[:, None, None], flipped, store_to_crop)), flips


def plan_photometric(config: AugmentConfig, size: tuple[int, int], count: int, seed: list[int]) -> Photometric:
    """Brightness, contrast, blur, noise and hidden patches of so many crops of a size (width, height)."""
    brightness, blur, noise, patch = (np.random.default_rng([*seed, kind]) for kind in (BRIGHTNESS, BLUR, NOISE, PATCH))
    # A patch is from a tenth to a third of the crop's shorter side, wide and high.
    sides = patch.integers(max(1, min(size) // 10), max(2, min(size) // 3) + 1, (count, 2))
    corner = (patch.random((count, 2)) * (np.array(size) - sides + 1)).astype(int)
    hidden = patch.random(count) < config.occlude
    return Photometric(
        contrast=1 + config.contrast * brightness.uniform(-1, 1, count),
        brightness=255 * config.brightness * brightness.uniform(-1, 1, count),
        sigma=np.where(blur.random(count) < config.blur, blur.uniform(*BLUR_SIGMA, count), 0.0),
        noise=np.where(noise.random(count) < config.noise, 255 * noise.uniform(*NOISE_STD, count), 0.0),
        seeds=noise.integers(2**31, size=count),
        patches=hidden[:, None] * np.concatenate([corner, corner + sides], axis=1),
        fill=patch.integers(0, 256, count).astype(float),
    )


def hash_noise(seeds: torch.Tensor, count: int) -> torch.Tensor:
    """`count` standard normal numbers for each seed (n,) int64, the same ones on any device: a hash of seed and place, mixed as
    by Steele et al. 2014 (SplitMix), then Box and Muller's transform."""
    half = (count + 1) // 2
    mixed = seeds[:, None] * 0x9E3779B97F4A7C1 + torch.arange(half, device=seeds.device) * 0x5851F42D4C957F2D
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    one, other = (((mixed >> shift) & 0xFFFFFF).float().add(0.5) / 2**24 for shift in (8, 36))
    radius, angle = torch.sqrt(-2 * torch.log(one)), 2 * torch.pi * other
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count]
