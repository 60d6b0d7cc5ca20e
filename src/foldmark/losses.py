"""The losses: each takes the differences (n, k, 2) in percent of the crop's width and gives one number."""

import torch
from torch.nn.functional import smooth_l1_loss


def l1(difference: torch.Tensor) -> torch.Tensor:
    return difference.abs().mean()


def mse(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().mean()


def smooth_l1(difference: torch.Tensor) -> torch.Tensor:
    """Squared below one percent of the crop's width, absolute above."""
    return smooth_l1_loss(difference, torch.zeros_like(difference))


LOSSES = {"l1": l1, "mse": mse, "smooth_l1": smooth_l1}
