"""The nets: a backbone gives maps, a head finds the points in them. A variant is a YAML file that names both."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foldmark.core.config import Config
from foldmark.models.blur import anti_alias
from foldmark.models.heads import HEADS


class PointRegressor(nn.Module):
    """Backbone and head. forward takes crops uint8 or float (n, 1, height, width) and gives points_crop float32 (n, k, 2).

    With train.mean_face the head starts at the mean face and has only the difference to learn.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, mean_points_crop: torch.Tensor, config: Config) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("mean_points_crop", mean_points_crop.float())
        self.start_at_mean, self.standardise = config.train.mean_face, config.model.standardise

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(self.light(crops.float())), self.mean_points_crop if self.start_at_mean else None)

    def light(self, crops: torch.Tensor) -> torch.Tensor:
        if not self.standardise:
            return crops / 255 - 0.5
        # Each crop by its own light: exposure and contrast carry nothing about where a point is.
        centred = crops - crops.mean((2, 3), keepdim=True)
        return centred / (crops.std((2, 3), keepdim=True) + 8)


class ResNet18(nn.Module):
    """torchvision's ResNet18 (He et al. 2016) with a 1-channel first conv, without its last layer, anti-aliased as
    `model.blur` says: the maps of its four stages, at a 4th, 8th, 16th and 32nd of the crop."""

    def __init__(self, config: Config) -> None:
        from torchvision.models import resnet18  # takes two seconds, which a CNN need not wait for

        super().__init__()
        net = resnet18(weights=None)
        net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        if config.model.blur != "none":
            anti_alias(net, config.model.blur, config.model.blur_size)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.channels = [64, 128, 256, 512]
        self.cells = tuple(-(-side // 32) for side in config.crop.size)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(pictures))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[1:]


class Cnn(nn.Module):
    """The course's small net: convs, each with ReLU and a max-pool that halves the map; the last map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        layers, before = [], 1
        for channels in model.channels:
            layers.append(nn.Conv2d(before, channels, model.kernel, padding="same", bias=not model.norm))
            if model.norm:
                layers.append(nn.BatchNorm2d(channels))
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            before = channels
        self.convs = nn.Sequential(*layers)
        self.channels = model.channels
        self.cells = tuple(side >> len(model.channels) for side in config.crop.size)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [self.convs(pictures)]


BACKBONES = {"resnet18": ResNet18, "cnn": Cnn}


def build_model(config: Config, mean_points_crop: torch.Tensor, seed: int) -> PointRegressor:
    """A fresh net; the seed alone decides its weights. mean_points_crop: (k, 2) of the training faces."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = BACKBONES[config.model.name](config)
        head = HEADS[config.model.head](backbone.channels, backbone.cells, len(mean_points_crop), config)
        if config.train.mean_face:
            # Starting at the mean face itself: the first steps then go into the features, not into finding the middle.
            nn.init.normal_(head.fc.weight, std=1e-3)
            nn.init.zeros_(head.fc.bias)
    return PointRegressor(backbone, head, mean_points_crop, config)


def layer_table(model: PointRegressor, config: Config) -> str:
    """The layers of a net in the order in which they run: name, kind, output shape for one picture, parameters; and the
    operations that one picture takes."""
    lines = []

    def note(name: str):
        def hook(module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            count = sum(weight.numel() for weight in module.parameters())
            shape = "x".join(map(str, output.shape[1:]))
            lines.append(f"{name:<32}{type(module).__name__:<20}{shape:<16}{count:>12,}")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    operations = multiplications(model, config)
    for handle in handles:
        handle.remove()
    head = f"{'layer':<32}{'kind':<20}{'output':<16}{'parameters':>12}"
    width, height = config.crop.size
    per_picture = f"{operations / 1e6:,.0f} million multiplications for a crop of {width}x{height}"
    return "\n".join([head, *lines, f"{'all':<68}{parameters(model):>12,}", per_picture])


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@torch.inference_mode()
def multiplications(model: PointRegressor, config: Config) -> int:
    """Multiply-adds of convs and linear layers for one crop; a FLOP count that counts both is twice this."""
    width, height = config.crop.size
    crop = torch.zeros(1, 1, height, width, device=model.mean_points_crop.device)
    with FlopCounterMode(display=False) as counter:
        model.eval()(crop)
    return counter.get_total_flops() // 2
