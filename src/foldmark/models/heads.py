"""The heads: from a backbone's maps to points in crop pixels. A head is a class here and a name in HEADS."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from foldmark.core.config import Config
from foldmark.core.errors import UserError


class Head(nn.Module):
    """Built from the channels of the maps, the cells (width, height) of the last map, the number of points and the config.
    Called with the maps and the mean face (k, 2) to start from, or None, it gives points_crop (n, k, 2). fc: its last layer."""

    fc: nn.Linear | nn.Conv2d

    def predict(self, maps: list[torch.Tensor], mean_points_crop: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The points, and how far the votes that each is the mean of lie from it (n, k), root mean square of a coordinate in crop
        pixels: 0 without votes."""
        points_crop = self(maps, mean_points_crop)
        return points_crop, torch.zeros_like(points_crop[..., 0])


class PooledHead(Head):
    """Direct regression from the mean of the last map, as in the report: one linear layer."""

    def __init__(self, channels: tuple[int, ...], cells: tuple[int, int], points: int, config: Config) -> None:
        super().__init__()
        self.fc = nn.Linear(channels[-1], 2 * points)
        self.size = config.crop.size

    def forward(self, maps: list[torch.Tensor], mean_points_crop: torch.Tensor | None) -> torch.Tensor:
        return read_outputs(self.fc(maps[-1].mean((2, 3))), self.size, mean_points_crop)


class FlatHead(Head):
    """Direct regression from the whole last map, as in the course's small CNN: two linear layers."""

    def __init__(self, channels: tuple[int, ...], cells: tuple[int, int], points: int, config: Config) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels[-1] * cells[0] * cells[1], config.model.hidden)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(config.model.hidden, 2 * points)
        self.size = config.crop.size

    def forward(self, maps: list[torch.Tensor], mean_points_crop: torch.Tensor | None) -> torch.Tensor:
        return read_outputs(self.fc(self.relu(self.hidden(maps[-1].flatten(1)))), self.size, mean_points_crop)


class CellHead(Head):
    """A vote of cells: each cell of a map at an eighth of the crop says for each point how likely it is near and where it
    then is, and the point is the mean of what the cells say, weighted by how likely they are.

    Trained on the points alone: a soft-argmax (Sun et al. 2018, Integral Human Pose Regression) over cells with offsets
    (Jin et al. 2021, Pixel-in-Pixel Net). The votes start as a bell about each point of the mean face. Raises UserError for a
    backbone with a single map.
    """

    STRIDE = 8
    BELL = 0.1  # its spread, as a share of the crop's width
    SHARPEN = 4.0  # small weights make sharp votes

    centres_crop: torch.Tensor

    def __init__(self, channels: tuple[int, ...], cells: tuple[int, int], points: int, config: Config) -> None:
        super().__init__()
        if len(channels) < 2:
            raise UserError(f"model.head: cells needs the maps of a ResNet; {config.model.name} goes with flat or pool.")
        width, size = config.model.width, config.crop.size
        self.laterals = nn.ModuleList([nn.Conv2d(count, width, 1) for count in channels[1:]])
        self.mix = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.fc = nn.Conv2d(width, 3 * points, 1)
        columns, rows = (-(-side // self.STRIDE) for side in size)
        x, y = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
        centres_crop = (torch.stack([x, y], -1).view(-1, 2) + 0.5) * self.STRIDE - 0.5
        self.register_buffer("centres_crop", centres_crop, persistent=False)
        self.bell_crop = size[0] * self.BELL

    def forward(self, maps: list[torch.Tensor], mean_points_crop: torch.Tensor | None) -> torch.Tensor:
        share, x, y = self._vote(maps, mean_points_crop)
        return torch.stack([(share * x).sum(2), (share * y).sum(2)], dim=2)

    def predict(self, maps: list[torch.Tensor], mean_points_crop: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        share, x, y = self._vote(maps, mean_points_crop)
        points_crop = torch.stack([(share * x).sum(2), (share * y).sum(2)], dim=2)
        squared = (x - points_crop[..., :1]).square() + (y - points_crop[..., 1:]).square()
        return points_crop, ((share * squared).sum(2) / 2).sqrt()

    def _vote(
        self, maps: list[torch.Tensor], mean_points_crop: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each cell's share in each point (n, k, cells), and where it says that the point is: x and y in crop pixels."""
        *finer, joined = [lateral(part) for lateral, part in zip(self.laterals, maps[1:], strict=True)]
        for part in reversed(finer):
            joined = part + functional.interpolate(joined, size=part.shape[2:], mode="bilinear")
        scores, right, down = self.fc(self.mix(joined)).float().flatten(2).chunk(3, dim=1)
        scores = self.SHARPEN * scores
        if mean_points_crop is not None:
            scores = scores - torch.cdist(mean_points_crop, self.centres_crop).div(self.bell_crop).square() / 2
        share = functional.softmax(scores, dim=2)
        return share, self.centres_crop[:, 0] + self.STRIDE * right, self.centres_crop[:, 1] + self.STRIDE * down


MakeHead = Callable[[tuple[int, ...], tuple[int, int], int, Config], Head]
HEADS: dict[str, MakeHead] = {
    "pool": PooledHead,
    "flat": FlatHead,
    "cells": CellHead,
}


def read_outputs(outputs: torch.Tensor, size: tuple[int, int], mean_points_crop: torch.Tensor | None) -> torch.Tensor:
    """Read direct outputs (n, 2k): as differences from the mean face in tenths of the crop, about what faces differ by, or
    without one as positions relative to the crop, as in the report."""
    points = outputs.float().unflatten(1, (-1, 2)) * outputs.new_tensor(size, dtype=torch.float32)
    return points if mean_points_crop is None else mean_points_crop + points / 10
