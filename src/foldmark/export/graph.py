"""The graph of an exported file: a net that sees each crop and its mirror image, and the calibration of its run."""

import numpy as np
import torch
from torch import nn

from foldmark.core.config import Config
from foldmark.core.markup import Markup
from foldmark.ensemble.calibration import Calibration
from foldmark.models.net import PointRegressor


class ExportedNet(nn.Module):
    """forward takes crops uint8 (n, 1, height, width) and gives points_crop float32 (n, k, 2) and std_crop float32 (n, k), the
    standard deviation of each coordinate, both in crop pixels.

    With predict.flip the points are the mean of those of the crop and of its mirror image, and how far the two lie apart says
    how uncertain they are, as the calibration measured it on out-of-fold predictions. It is relative to the box, of which a crop
    shows the same share on average also where it was aligned to the mean face.
    """

    mirror: torch.Tensor
    spread: torch.Tensor
    variance: torch.Tensor

    def __init__(self, net: PointRegressor, calibration: Calibration, config: Config, markup: Markup) -> None:
        super().__init__()
        self.net, self.flip = net, config.predict.flip
        self.box_crop = config.crop.size[0] / config.crop.enlargement
        self.last_column = config.crop.size[0] - 1
        spread, variance = smooth_curve(calibration)
        self.register_buffer("spread", torch.from_numpy(spread.astype(np.float32)))
        self.register_buffer("variance", torch.from_numpy(variance.astype(np.float32)))
        self.register_buffer("mirror", torch.from_numpy(markup.mirror.copy()))

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.flip:
            points_crop = self.net(crops)
            return points_crop, self.find_std(torch.zeros_like(points_crop[..., 0]))
        count, both = crops.shape[0], self.net(torch.cat([crops, crops.flip(3)]))
        plain, flipped = both[:count], both[count:]
        flipped = torch.stack([self.last_column - flipped[..., 0], flipped[..., 1]], dim=2)[:, self.mirror]
        # The distance of each of the two from their mean.
        return (plain + flipped) / 2, self.find_std(((plain - flipped) / 2).square().sum(2).sqrt())

    def find_std(self, spread_crop: torch.Tensor) -> torch.Tensor:
        """The standard deviation (n, k) for a spread (n, k): the curve, straight between its points, level beyond."""
        spread = (spread_crop / self.box_crop).clamp(self.spread[0], self.spread[-1])
        after = (spread[..., None] >= self.spread).sum(2).clamp(max=len(self.spread) - 1)
        before = (after - 1).clamp(min=0)
        low, high = self.spread[before], self.spread[after]
        share = (spread - low) / (high - low).clamp(min=1e-12)
        variance = self.variance[before] + share * (self.variance[after] - self.variance[before])
        return variance.sqrt() * self.box_crop


def smooth_curve(calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """The curve through the middle of each level of a calibration (centred isotonic regression, Oron and Flournoy 2017):
    spread (m,) and variance (m,), both rising. A step would make a large difference of a rounding error."""
    variance, level = np.unique(calibration.variance, return_inverse=True)
    return np.bincount(level, calibration.spread) / np.bincount(level), variance
