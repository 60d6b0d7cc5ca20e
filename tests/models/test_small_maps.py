"""Convs on small maps: another way to compute the same numbers, and the same weights."""

import numpy as np
import pytest
import torch
from torch import nn

from foldmark.core.config import Config
from foldmark.models.device import Speed
from foldmark.models.net import build_model
from foldmark.models.small_maps import LARGEST_SIDE, SmallMapConv, replace_small_map_convs
from foldmark.train.state import new_state


def make_pair(stride: int) -> tuple[nn.Conv2d, SmallMapConv]:
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 40, 3, stride, padding=1, bias=False)
    return conv, SmallMapConv.replace(conv)


def train_step(conv: nn.Module, maps: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Output, and the gradients of maps and weights."""
    maps = maps.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = conv(maps)
    (out.float() * wanted).sum().backward()
    assert maps.grad is not None
    return [out.detach().float(), maps.grad.clone(), conv.get_parameter("weight").grad.clone()]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (5, 5), (3, 6), (6, 5)])
def test_small_maps_in_bf16_have_the_output_and_gradients_of_a_plain_conv(stride, height, width):
    conv, fast = make_pair(stride)
    maps = torch.randn(3, 128, height, width).to(memory_format=torch.channels_last)
    wanted = torch.randn_like(conv(maps))
    exact = train_step(conv, maps, wanted, torch.float32)
    for found, true in zip(train_step(fast, maps, wanted, torch.bfloat16), exact, strict=True):
        assert found.shape == true.shape
        # bf16 has 8 bits.
        assert (found - true).abs().max() < 0.02 * true.abs().max()


def test_a_larger_map_gives_the_bits_of_the_plain_conv():
    conv, fast = make_pair(1)
    maps = torch.randn(2, 128, LARGEST_SIDE + 1, 4)
    wanted = torch.randn_like(conv(maps))
    one, other = (train_step(either, maps, wanted, torch.bfloat16) for either in (conv, fast))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_resnet_keeps_its_names_and_weights_and_a_blurred_conv():
    config = Config.model_validate({"model": {"blur": "late"}})
    model = build_model(config, torch.zeros(68, 2), seed=3)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    replace_small_map_convs(model)
    assert {name: values.shape for name, values in model.state_dict().items()} == {
        name: values.shape for name, values in before.items()
    }
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    kinds = {name: type(module) for name, module in model.backbone.named_modules() if isinstance(module, nn.Conv2d)}
    # Of layer4: the blurred conv is no plain one, the shortcut's is 1x1.
    found = [name for name, kind in kinds.items() if kind is SmallMapConv and name.startswith("layer4")]
    assert found == ["layer4.0.conv1", "layer4.1.conv1", "layer4.1.conv2"], kinds


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_takes_them_in_bf16_alone_and_the_averaged_model_never(precision):
    config, speed = Config.model_validate({"model": {"head": "cells"}}), Speed(channels_last=True, precision=precision)
    state = new_state(config, np.zeros((68, 2)), 0, speed, torch.device("cpu"))
    has = [any(isinstance(module, SmallMapConv) for module in model.modules()) for model in (state.model, state.averaged)]
    assert has == [precision == "bf16", False]
