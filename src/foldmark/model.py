"""The nets: a variant is a name in MODELS and a YAML file."""

import torch
import torchvision
from torch import nn

from foldmark.config import Config


class PointRegressor(nn.Module):
    """A backbone with 2k outputs, read as points in crop pixels.

    points_crop = mean_points_crop + output * spread: the net starts at the mean face and has only the difference to learn.
    Without start_at_mean its outputs are positions relative to the crop, as in the report. forward takes crops uint8 or
    float (n, 1, size, size) and gives points_crop float32 (n, k, 2).
    """

    def __init__(self, backbone: nn.Module, mean_points_crop: torch.Tensor, start_at_mean: bool, size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean_points_crop", mean_points_crop.float())
        self.start_at_mean = start_at_mean
        self.spread = size / 10 if start_at_mean else size

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        crops = crops.float()
        # Each crop by its own light: exposure and contrast carry nothing about where a point is.
        centred = crops - crops.mean((2, 3), keepdim=True)
        standard = centred / (crops.std((2, 3), keepdim=True) + 8)
        output = self.backbone(standard).float()
        points_crop = output.view(len(crops), -1, 2) * self.spread
        return self.mean_points_crop + points_crop if self.start_at_mean else points_crop


def resnet18(outputs: int) -> nn.Module:
    """torchvision's ResNet18 (He et al. 2016) with a 1-channel first conv, from scratch."""
    net = torchvision.models.resnet18(weights=None)
    net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net.fc = nn.Linear(net.fc.in_features, outputs)
    return net


MODELS = {"resnet18": resnet18}


def build_model(config: Config, mean_points_crop: torch.Tensor, seed: int) -> PointRegressor:
    """A fresh net; the seed alone decides its weights. mean_points_crop: (k, 2) of the training faces."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = MODELS[config.model.name](mean_points_crop.numel())
        if config.train.mean_face:
            # Starting at the mean face itself: the first steps then go into the features, not into finding the middle.
            nn.init.normal_(backbone.fc.weight, std=1e-3)
            nn.init.zeros_(backbone.fc.bias)
    return PointRegressor(backbone, mean_points_crop, config.train.mean_face, config.crop.size)
