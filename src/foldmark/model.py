"""The nets: a variant is a name in MODELS and a YAML file."""

from collections import OrderedDict

import torch
import torchvision
from torch import nn

from foldmark.blur import anti_alias
from foldmark.config import Config


class PointRegressor(nn.Module):
    """A backbone with 2k outputs, read as points in crop pixels.

    points_crop = mean_points_crop + output * spread: the net starts at the mean face and has only the difference to learn.
    Without train.mean_face its outputs are positions relative to the crop, as in the report. forward takes crops uint8 or
    float (n, 1, height, width) and gives points_crop float32 (n, k, 2).
    """

    def __init__(self, backbone: nn.Module, mean_points_crop: torch.Tensor, config: Config) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean_points_crop", mean_points_crop.float())
        self.start_at_mean, self.standardise = config.train.mean_face, config.model.standardise
        size = torch.tensor(config.crop.size, dtype=torch.float32)
        self.register_buffer("spread", size / 10 if self.start_at_mean else size, persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        output = self.backbone(self.light(crops.float())).float()
        points_crop = output.view(len(crops), -1, 2) * self.spread
        return self.mean_points_crop + points_crop if self.start_at_mean else points_crop

    def light(self, crops: torch.Tensor) -> torch.Tensor:
        if not self.standardise:
            return crops / 255 - 0.5
        # Each crop by its own light: exposure and contrast carry nothing about where a point is.
        centred = crops - crops.mean((2, 3), keepdim=True)
        return centred / (crops.std((2, 3), keepdim=True) + 8)


def resnet18(config: Config, outputs: int) -> nn.Module:
    """torchvision's ResNet18 (He et al. 2016) with a 1-channel first conv, from scratch; anti-aliased as `model.blur` says."""
    net = torchvision.models.resnet18(weights=None)
    net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net.fc = nn.Linear(net.fc.in_features, outputs)
    return net if config.model.blur == "none" else anti_alias(net, config.model.blur, config.model.blur_size)


def cnn(config: Config, outputs: int) -> nn.Module:
    """The course's small net: convs, each with ReLU and a max-pool that halves the map, then two linear layers."""
    model = config.model
    layers, before = [], 1
    for channels in model.channels:
        layers.append(nn.Conv2d(before, channels, model.kernel, padding="same", bias=not model.norm))
        if model.norm:
            layers.append(nn.BatchNorm2d(channels))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        before = channels
    width, height = (side >> len(model.channels) for side in config.crop.size)
    named = {
        "convs": nn.Sequential(*layers),
        "flat": nn.Flatten(),
        "hidden": nn.Linear(before * width * height, model.hidden),
        "relu": nn.ReLU(),
        "fc": nn.Linear(model.hidden, outputs),
    }
    return nn.Sequential(OrderedDict(named))


MODELS = {"resnet18": resnet18, "cnn": cnn}


def build_model(config: Config, mean_points_crop: torch.Tensor, seed: int) -> PointRegressor:
    """A fresh net; the seed alone decides its weights. mean_points_crop: (k, 2) of the training faces."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = MODELS[config.model.name](config, mean_points_crop.numel())
        if config.train.mean_face:
            # Starting at the mean face itself: the first steps then go into the features, not into finding the middle.
            nn.init.normal_(backbone.fc.weight, std=1e-3)
            nn.init.zeros_(backbone.fc.bias)
    return PointRegressor(backbone, mean_points_crop, config)


def layer_table(model: PointRegressor, config: Config) -> str:
    """The layers of a net in the order in which they run: name, kind, output shape for one picture, parameters."""
    lines = []

    def note(name: str):
        def hook(module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            count = sum(weight.numel() for weight in module.parameters())
            shape = "x".join(map(str, output.shape[1:]))
            lines.append(f"{name:<28}{type(module).__name__:<20}{shape:<16}{count:>12,}")

        return hook

    leaves = [(name, module) for name, module in model.backbone.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    width, height = config.crop.size
    with torch.inference_mode():
        model(torch.zeros(1, 1, height, width, device=model.mean_points_crop.device))
    for handle in handles:
        handle.remove()
    total = sum(weight.numel() for weight in model.parameters())
    head = f"{'layer':<28}{'kind':<20}{'output':<16}{'parameters':>12}"
    return "\n".join([head, *lines, f"{'all':<64}{total:>12,}"])
