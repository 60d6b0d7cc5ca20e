"""The backbones: from a crop to maps. A backbone is a row in BACKBONES; a ResNet needs no more than that."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.models.blur import anti_alias


class Backbone(nn.Module):
    """Built from the config; called with pictures (n, 1, height, width), it gives the list of maps, the finest first.

    channels: of each map. cells: width and height of the last map. torchvision_name: the model that shares its weights'
    names, if torchvision has one.
    """

    channels: tuple[int, ...]
    cells: tuple[int, int]
    torchvision_name: str | None = None


class ResNet(Backbone):
    """torchvision's ResNet of that name (He et al. 2016) with a 1-channel first conv and without its last layer, anti-aliased
    as `model.blur` says: the maps of its four stages, at a 4th, 8th, 16th and 32nd of the crop."""

    def __init__(self, config: Config, torchvision_name: str, channels: tuple[int, ...]) -> None:
        # Slow to import, so only where a ResNet is built.
        from torchvision.models import get_model

        super().__init__()
        net = get_model(torchvision_name, weights=None)
        net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        if config.model.blur != "none":
            anti_alias(net, config.model.blur, config.model.blur_size)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.torchvision_name, self.channels = torchvision_name, channels
        width, height = config.crop.size
        self.cells = (-(-width // 32), -(-height // 32))

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(pictures))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[1:]


class Cnn(Backbone):
    """The course's small CNN: convs, each with ReLU and a max-pool that halves the map; the last map. Raises UserError if the
    crop is too small for that many convs."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        if min(config.crop.size) >> len(model.channels) == 0:
            raise UserError("model.channels: each conv halves the picture, and nothing of crop.size is left for the last.")
        layers: list[nn.Module] = []
        before = 1
        for channels in model.channels:
            layers.append(nn.Conv2d(before, channels, model.kernel, padding="same", bias=not model.norm))
            if model.norm:
                layers.append(nn.BatchNorm2d(channels))
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            before = channels
        self.convs = nn.Sequential(*layers)
        self.channels = (model.channels[-1],)
        width, height = config.crop.size
        self.cells = (width >> len(model.channels), height >> len(model.channels))

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [self.convs(pictures)]


BACKBONES: dict[str, Callable[[Config], Backbone]] = {
    "cnn": Cnn,
    "resnet18": partial(ResNet, torchvision_name="resnet18", channels=(64, 128, 256, 512)),
    "resnet34": partial(ResNet, torchvision_name="resnet34", channels=(64, 128, 256, 512)),
}
