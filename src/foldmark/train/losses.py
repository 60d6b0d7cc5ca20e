"""The losses: each takes the differences (n, k, 2) in percent of the crop's width and gives one number a face (n,)."""

import math

import torch
from torch.nn.functional import smooth_l1_loss

# The papers' settings for a picture of 256 pixels, in percent of its width: where a part starts, its weight, its curvature.
WING_END, WING_CURVATURE = 4.0, 0.8
SOFT_START, SOFT_WEIGHT, SOFT_CURVATURE = 0.8, 8.0, 0.2


def l1(difference: torch.Tensor) -> torch.Tensor:
    return difference.abs().mean((1, 2))


def mse(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().mean((1, 2))


def smooth_l1(difference: torch.Tensor) -> torch.Tensor:
    """Squared below one percent of the crop's width, absolute above."""
    return smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none").mean((1, 2))


def euclidean(difference: torch.Tensor) -> torch.Tensor:
    """The distance of each point from its truth, which is what NME counts."""
    # The small number keeps the gradient finite where a point is met exactly.
    return (difference.square().sum(2) + 1e-6).sqrt().mean(1)


def wing(difference: torch.Tensor) -> torch.Tensor:
    """Logarithmic below WING_END, so that small errors count too, absolute above (Feng et al. 2018, Wing Loss)."""
    error = difference.abs()
    step = WING_END - WING_END * math.log1p(WING_END / WING_CURVATURE)
    near = WING_END * torch.log1p(error / WING_CURVATURE)
    return torch.where(error < WING_END, near, error - step).mean((1, 2))


def soft_wing(difference: torch.Tensor) -> torch.Tensor:
    """Absolute below SOFT_START, where labels scatter themselves, logarithmic above, so that middling errors count most
    (Lin et al. 2021, Structure-Coherent Deep Feature Learning for Robust Face Alignment)."""
    error = difference.abs()
    step = SOFT_START - SOFT_WEIGHT * math.log1p(SOFT_START / SOFT_CURVATURE)
    far = SOFT_WEIGHT * torch.log1p(error / SOFT_CURVATURE) + step
    return torch.where(error < SOFT_START, error, far).mean((1, 2))


LOSSES = {
    "l1": l1,
    "mse": mse,
    "smooth_l1": smooth_l1,
    "euclidean": euclidean,
    "wing": wing,
    "soft_wing": soft_wing,
}
