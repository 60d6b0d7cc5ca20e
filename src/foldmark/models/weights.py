"""Weights to start from: torchvision's own of ImageNet, folded to one grey channel, or those of another experiment."""

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from foldmark.core.errors import UserError
from foldmark.models.backbones import Backbone
from foldmark.models.checkpoint import load_checkpoint
from foldmark.runs.fold_folder import FoldFolder

IMAGENET = "imagenet"


def load_pretrained(backbone: Backbone, weights: str) -> None:
    """Load torchvision's weights into a backbone, in place: `imagenet`, which torchvision downloads and keeps, or the path of
    a state dict. Raises UserError where they cannot be had or do not fit."""
    name, state = torchvision_name(backbone), read_pretrained(backbone, weights)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        # A grey picture has the same value in all three channels, so their weights add up.
        state["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
        backbone.load_state_dict(state)
    except (KeyError, AttributeError, RuntimeError):
        raise UserError(f"model.weights: {weights} does not hold the weights of torchvision's {name}.") from None


def read_pretrained(backbone: Backbone, weights: str) -> dict[str, torch.Tensor]:
    """The state dict that `load_pretrained` loads. Raises UserError where it cannot be had."""
    name = torchvision_name(backbone)
    state = _download_imagenet(name) if weights == IMAGENET else load_checkpoint(Path(weights))
    if state is None:
        raise UserError(f"model.weights: {weights}: no such file; give {IMAGENET!r} or the path of a state dict of {name}.")
    return state


def torchvision_name(backbone: Backbone) -> str:
    """torchvision's name of a backbone. Raises UserError for one that is not torchvision's, so has no weights to start from."""
    if backbone.torchvision_name is None:
        raise UserError("model.weights: only the ResNets have weights to start from; remove it, or choose one in model.name.")
    return backbone.torchvision_name


def load_source(key: str, source: FoldFolder) -> dict:
    """The checkpoint of a fold that a key of the config names. Raises UserError where the fold lost it."""
    state = load_checkpoint(source.checkpoint)
    if state is None:
        raise UserError(f"{key}: {source.checkpoint} is missing; remove its folder and train it again.")
    return state


def load_fold(model: nn.Module, start: FoldFolder) -> None:
    """Load into a model, in place, the averaged weights of the fold to start from; the mean face stays its own. Raises UserError
    where that fold has another model."""
    state = load_source("train.start", start)
    try:
        model.load_state_dict({**state["averaged"], "mean_points_crop": model.mean_points_crop})
    except (RuntimeError, KeyError, TypeError):
        raise UserError(
            f"train.start: {start.path.parent} has another model; give this run the model settings in its config.yaml."
        ) from None


def _download_imagenet(name: str) -> dict[str, torch.Tensor]:
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(name).IMAGENET1K_V1.get_state_dict(check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: torchvision could not download the ImageNet weights ({error}); connect to the network, or give the "
            f'path of its {name} .pth file: SET="model.weights=/where/it/is.pth".'
        ) from None
