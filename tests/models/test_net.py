"""The nets: anti-aliasing adds no weights, keeps names, and makes the net stiller; each variant gives points of its shape."""

from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from foldmark.core.config import check_config
from foldmark.core.config_file import load_config
from foldmark.core.errors import UserError
from foldmark.models.backbones import BACKBONES, ResNet
from foldmark.models.blur import BlurPool, anti_alias
from foldmark.models.net import build_model, list_layers
from foldmark.models.weights import load_pretrained
from foldmark.train.state import check_names
from tests.conftest import REPOSITORY

BLURS = ["all", "early", "late"]


def net(**model):
    config = check_config({"crop": {"size": [96, 64], "square": False}, "model": model}, "test")
    return build_model(config, 20 + 24 * torch.rand(58, 2), seed=0).eval(), config


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_a_blur_keeps_flat_pictures_flat_and_halves_them(taps):
    maps = torch.full((2, 3, 12, 18), 0.7)
    blurred = BlurPool(taps)(maps)
    assert blurred.shape == (2, 3, 6, 9)
    assert torch.allclose(blurred, torch.full_like(blurred, 0.7))


def test_a_blur_removes_the_finest_pattern():
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    blurred = BlurPool(3)(checks[None, None].float())
    assert (blurred[..., 1:-1, 1:-1] - 0.5).abs().max() < 1e-6


@pytest.mark.parametrize(("name", "where"), [*(("resnet18", where) for where in BLURS), ("resnet50", "all")])
def test_stock_weights_load_into_a_blurred_resnet(name, where):
    stock = torchvision.models.get_model(name, weights=None)
    blurred = anti_alias(torchvision.models.get_model(name, weights=None), where, 4)
    blurred.load_state_dict(stock.state_dict())
    assert [name for name, _ in blurred.named_parameters()] == [name for name, _ in stock.named_parameters()]
    pictures = torch.randn(1, 3, 64, 96)
    assert blurred.layer4(blurred.layer3(blurred.layer2(blurred.layer1(blurred.maxpool(blurred.conv1(pictures)))))).shape == (
        1,
        stock.fc.in_features,
        2,
        3,
    )


def unrest(backbone: nn.Module) -> float:
    """How much the pooled features of noise change when it moves by a pixel, relative to their size."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 3, 130, 130, generator=generator)
    backbone.eval()
    with torch.inference_mode():
        still, moved = (backbone(noise[..., :128, shift : 128 + shift]) for shift in (0, 1))
    return float((still - moved).norm() / still.norm())


def test_a_blurred_net_moves_less_when_its_picture_does():
    torch.manual_seed(0)
    stock = torchvision.models.resnet18(weights=None)
    blurred = torchvision.models.resnet18(weights=None)
    blurred.load_state_dict(stock.state_dict())
    stock.fc = blurred.fc = nn.Identity()
    assert unrest(anti_alias(blurred, "all", 5)) < 0.8 * unrest(stock)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "cnn", "head": "flat"},
        {"name": "cnn", "head": "pool", "norm": True, "kernel": 5},
        {},
        *({"blur": where} for where in BLURS),
        {"head": "flat"},
        {"head": "cells", "width": 32},
        {"name": "resnet34", "head": "cells", "width": 32},
    ],
)
def test_each_variant_starts_at_the_mean_face(model):
    built, config = net(**model)
    # As training starts: without batch statistics, a deep ResNet's features grow from block to block.
    points_crop = built.train()(torch.randint(0, 255, (3, 1, 64, 96), dtype=torch.uint8))
    assert points_crop.shape == (3, 58, 2)
    assert np.abs((points_crop - built.mean_points_crop).detach().numpy()).max() < 3
    table = list_layers(built, config)
    assert f"{sum(weight.numel() for weight in built.parameters()):,}" in table


def test_a_resnet_of_bottlenecks_is_one_more_row(monkeypatch):
    row = partial(ResNet, torchvision_name="resnet50", channels=(256, 512, 1024, 2048))
    monkeypatch.setitem(BACKBONES, "resnet50", row)
    for model in ({"head": "cells", "blur": "all"}, {"head": "flat"}):
        built, _ = net(name="resnet50", **model)
        assert built(torch.zeros(1, 1, 64, 96)).shape == (1, 58, 2)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"model": {"name": "cnn", "channels": [8] * 8}}, r"model\.channels"),
        ({"model": {"name": "cnn", "head": "cells"}}, r"model\.head: cells needs the maps of a ResNet"),
        ({"model": {"name": "cnn", "weights": "imagenet"}}, r"model\.weights: only the ResNets"),
        ({"model": {"name": "resnet19"}}, r"model\.name: there is no 'resnet19'; did you mean resnet18\?"),
        ({"model": {"head": "cell"}}, r"model\.head: .* did you mean cells\?"),
        ({"train": {"loss": "wings"}}, r"train\.loss: .* did you mean wing\?"),
        ({"train": {"optimizer": "sgd"}}, r"train\.optimizer: .* there are adam, adamw, muon"),
    ],
)
def test_names_that_are_not_there_and_models_that_do_not_fit_are_refused(settings, problem):
    with pytest.raises(UserError, match=problem):
        check_names(check_config(settings, "test"))


def test_every_shipped_config_names_what_is_there():
    for path in sorted(set((REPOSITORY / "configs").glob("*.yaml")) - {REPOSITORY / "configs/search.yaml"}):
        if "blend:" not in path.read_text():
            check_names(load_config(str(path), path.parent))


def stock_file(tmp_path, name):
    stock = torchvision.models.get_model(name, weights=None)
    path = tmp_path / f"{name}.pth"
    torch.save(stock.state_dict(), path)
    return stock, path


@pytest.mark.parametrize(("name", "blur"), [("resnet18", "none"), ("resnet18", "all"), ("resnet34", "none")])
def test_stock_weights_are_folded_to_grey_and_give_the_same_maps(tmp_path, name, blur):
    stock, path = stock_file(tmp_path, name)
    built, _ = net(name=name, blur=blur)
    load_pretrained(built.backbone, str(path))
    if blur != "none":
        anti_alias(stock, blur, 4)
    grey = torch.randn(2, 1, 64, 96)
    stock.eval()
    with torch.inference_mode():
        coloured = stock.layer1(stock.maxpool(stock.relu(stock.bn1(stock.conv1(grey.expand(-1, 3, -1, -1))))))
        assert torch.allclose(built.backbone(grey)[0], coloured, atol=1e-4)


def test_weights_that_are_not_there_or_do_not_fit_are_refused(tmp_path, monkeypatch):
    built, _ = net()
    with pytest.raises(UserError, match="no such file"):
        load_pretrained(built.backbone, str(tmp_path / "none.pth"))
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the weights of torchvision's resnet18"):
        load_pretrained(built.backbone, str(tmp_path / "other.pth"))
    # Nothing listens there, so it is as without a network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="could not download the ImageNet weights"):
        load_pretrained(built.backbone, "imagenet")


def test_imagenet_weights_are_those_of_the_backbone(monkeypatch):
    """torchvision's table of weights answers with the files of the backbone's own name."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    built, _ = net(name="resnet34")
    with pytest.raises(UserError, match=r"its resnet34 \.pth file"):
        load_pretrained(built.backbone, "imagenet")


def test_the_command_prints_a_variant(foldmark):
    done = foldmark("model", "resnet34", "--set", "model.head=cells model.blur=all")
    assert done.returncode == 0, done.stderr
    assert "BlurPool" in done.stdout
    assert "backbone.layer3.5.conv2" in done.stdout
    assert "million multiplications for a crop of 128x128" in done.stdout
