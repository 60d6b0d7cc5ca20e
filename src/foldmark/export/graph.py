"""The graph of an exported file: a net that sees each crop and its mirror image, and the calibration of its run."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from foldmark.core.config import Config
from foldmark.core.markup import Markup
from foldmark.ensemble.calibration import SMALLEST, Calibration
from foldmark.models.net import PointRegressor


class ExportedAligner(nn.Module):
    """forward takes crops uint8 (n, 1, height, width), so many times larger than those of the aligner, and gives points_crop
    float32 (n, k, 2) in their pixels."""

    def __init__(self, net: PointRegressor, times: int) -> None:
        super().__init__()
        self.net, self.times = net, times

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        if self.times == 1:
            return self.net(crops)
        # Grey levels are whole, as those of a crop in memory.
        points = self.net(avg_pool2d(crops.float(), self.times).round())
        return (points + 0.5) * self.times - 0.5


class ExportedNet(nn.Module):
    """forward takes crops uint8 (n, 1, height, width) and gives points_crop float32 (n, k, 2), std_crop float32 (n, k), the
    standard deviation of each coordinate, both in crop pixels, and unlike uint8 (n,): 1 for a face unlike those that the net
    learned.

    With predict.flip the points are the mean of those of the crop and of its mirror image. How far the two lie apart, and the
    votes for each, say how uncertain they are, as the calibration measured it on out-of-fold predictions. It is relative to the
    box, of which a crop shows the same share on average also where it was aligned to the mean face.
    """

    mirror: torch.Tensor
    weights: torch.Tensor
    offsets: torch.Tensor
    limits: torch.Tensor
    score: torch.Tensor
    variance: torch.Tensor

    def __init__(self, net: PointRegressor, calibration: Calibration, config: Config, markup: Markup) -> None:
        super().__init__()
        self.net, self.flip = net, config.predict.flip
        self.box_crop = config.crop.size[0] / config.crop.enlargement
        self.last_column = config.crop.size[0] - 1
        score, variance = smooth_curve(calibration)
        numbers = {"weights": calibration.weights, "offsets": calibration.offsets, "limits": calibration.limits}
        for name, values in {**numbers, "score": score, "variance": variance}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)))
        self.register_buffer("mirror", torch.from_numpy(markup.mirror.copy()))

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if not self.flip:
            points_crop, votes_crop = self.net.predict(crops)
            return points_crop, *self.judge(torch.zeros_like(votes_crop), votes_crop)
        # Not len(), which would fix the number of crops.
        count = crops.shape[0]
        points_crop, votes_crop = self.net.predict(torch.cat([crops, crops.flip(3)]))
        plain, flipped = points_crop[:count], points_crop[count:]
        flipped = torch.stack([self.last_column - flipped[..., 0], flipped[..., 1]], dim=2)[:, self.mirror]
        # The distance of each of the two from their mean.
        spread_crop = ((plain - flipped) / 2).square().sum(2).sqrt()
        votes_crop = ((votes_crop[:count].square() + votes_crop[count:][:, self.mirror].square()) / 2).sqrt()
        return (plain + flipped) / 2, *self.judge(spread_crop, votes_crop)

    def judge(self, spread_crop: torch.Tensor, votes_crop: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """std_crop (n, k) and unlike (n,) for a spread and votes (n, k), as `Calibration.std_px` and `find_unlike` give them."""
        known = torch.stack([spread_crop, votes_crop], dim=2) / self.box_crop
        own, face = known.clamp(min=SMALLEST).log(), known.mean(1, keepdim=True).clamp(min=SMALLEST).log()
        score = (own * self.weights[:2]).sum(2) + (face * self.weights[2:]).sum(2) + self.offsets
        unlike = ((face[:, 0] - self.limits).amax(1) > 0).to(torch.uint8)
        return self.read_curve(score).sqrt() * self.box_crop, unlike

    def read_curve(self, score: torch.Tensor) -> torch.Tensor:
        """The variance (n, k) for scores (n, k): the curve, straight between its points, level beyond."""
        score = score.clamp(self.score[0], self.score[-1])
        after = (score[..., None] >= self.score).sum(2).clamp(max=len(self.score) - 1)
        before = (after - 1).clamp(min=0)
        low, high = self.score[before], self.score[after]
        share = (score - low) / (high - low).clamp(min=1e-12)
        return self.variance[before] + share * (self.variance[after] - self.variance[before])


def smooth_curve(calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """The curve through the middle of each level of a calibration (centred isotonic regression, Oron and Flournoy 2017):
    score (m,) and variance (m,), both rising. A step would make a large difference of a rounding error."""
    variance, level = np.unique(calibration.variance, return_inverse=True)
    return np.bincount(level, calibration.score) / np.bincount(level), variance
