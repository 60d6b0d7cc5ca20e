"""The model: a backbone gives maps, a head finds the points in them. A variant is a YAML file that names both."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from foldmark.core.config import Config
from foldmark.core.tables import pick
from foldmark.models.backbones import BACKBONES, Backbone
from foldmark.models.heads import HEADS, Head

if TYPE_CHECKING:
    from foldmark.models.trained import Aligner


class PointRegressor(nn.Module):
    """Backbone and head. forward takes crops uint8 or float (n, 1, height, width) and gives points_crop float32 (n, k, 2).

    With train.mean_face the head starts at the mean face and has only the difference to learn. aligner: finds where its crops
    lie; no part of its state.
    """

    backbone: Backbone
    head: Head
    mean_points_crop: torch.Tensor

    def __init__(self, backbone: Backbone, head: Head, mean_points_crop: torch.Tensor, config: Config) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("mean_points_crop", mean_points_crop.float())
        self.start_at_mean, self.standardise = config.train.mean_face, config.model.standardise
        self.aligner: Aligner | None = None

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(self.normalise_light(crops.float()))
        return self.head(maps, self.mean_points_crop if self.start_at_mean else None)

    def predict(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """forward's points_crop, and how far the votes for each lie from it (n, k), as `Head.predict` gives it."""
        maps = self.backbone(self.normalise_light(crops.float()))
        return self.head.predict(maps, self.mean_points_crop if self.start_at_mean else None)

    def normalise_light(self, crops: torch.Tensor) -> torch.Tensor:
        if not self.standardise:
            return crops / 255 - 0.5
        # Each crop by its own light: exposure and contrast carry nothing about where a point is.
        centred = crops - crops.mean((2, 3), keepdim=True)
        return centred / (crops.std((2, 3), keepdim=True) + 8)


def build_model(config: Config, mean_points_crop: torch.Tensor, seed: int) -> PointRegressor:
    """A model with random weights, which the seed alone decides. mean_points_crop: (k, 2) of the training faces. Raises
    UserError for an unknown backbone or head, and where the two do not fit each other or the crop."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = pick(BACKBONES, config.model.name, "model.name")(config)
        head = pick(HEADS, config.model.head, "model.head")(backbone.channels, backbone.cells, len(mean_points_crop), config)
        if config.train.mean_face:
            # Starting at the mean face itself: the first steps then go into the features, not into finding the middle.
            nn.init.normal_(head.fc.weight, std=1e-3)
            nn.init.zeros_(head.fc.get_parameter("bias"))
    return PointRegressor(backbone, head, mean_points_crop, config)


def list_layers(model: PointRegressor, config: Config) -> str:
    """The layers of a model in the order in which they run: name, kind, output shape for one picture, parameters; and the
    operations that one picture takes."""
    lines = []

    def note(name: str) -> Callable:
        def hook(module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            count = sum(weight.numel() for weight in module.parameters())
            shape = "x".join(map(str, output.shape[1:]))
            lines.append(f"{name:<32}{type(module).__name__:<20}{shape:<16}{count:>12,}")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    operations = count_multiplications(model, config)
    for handle in handles:
        handle.remove()
    head = f"{'layer':<32}{'kind':<20}{'output':<16}{'parameters':>12}"
    width, height = config.crop.size
    per_picture = f"{operations / 1e6:,.0f} million multiplications for a crop of {width}x{height}"
    return "\n".join([head, *lines, f"{'all':<68}{count_parameters(model):>12,}", per_picture])


def count_parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@torch.inference_mode()
def count_multiplications(model: PointRegressor, config: Config) -> int:
    """Multiply-adds of convs and linear layers for one crop; a FLOP count that counts both is twice this."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    width, height = config.crop.size
    crop = torch.zeros(1, 1, height, width, device=model.mean_points_crop.device)
    with FlopCounterMode(display=False) as counter:
        model.eval()(crop)
    return counter.get_total_flops() // 2
