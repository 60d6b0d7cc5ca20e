"""Muon: orthogonal steps of the hidden layers, AdamW's of the others, and a state that resumes to the same bits."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from foldmark.core.config import check_config
from foldmark.models.device import Speed
from foldmark.train.optimizers import Muon, orthogonalise
from foldmark.train.state import TrainState, new_state, training_step

RATE = 0.01
CONFIG = {"model": {"name": "cnn", "head": "flat", "channels": [4, 8], "hidden": 16}, "crop": {"size": 32}}
# The first layer sees pixels and the last one gives points; those between are hidden.
HIDDEN = {"backbone.convs.3.weight", "head.hidden.weight"}


def make_state(optimizer: str) -> TrainState:
    config = check_config({**CONFIG, "train": {"optimizer": optimizer, "lr": RATE, "weight_decay": 0}}, "test")
    return new_state(config, np.full((68, 2), 16.0), 0, Speed(channels_last=False), torch.device("cpu"))


def train(state: TrainState, steps: int) -> None:
    random = torch.Generator().manual_seed(1)
    crops = torch.randint(256, (64, 1, 32, 32), dtype=torch.uint8, generator=random)
    truth_crop = 16 + 4 * torch.randn(64, 68, 2, generator=random)
    for _ in range(steps):
        training_step(state, check_config(CONFIG, "test"), crops, truth_crop, torch.ones(64))


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 100), (2, 100, 16), (1, 1, 9)])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 0.6), (torch.bfloat16, 0.3)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape, dtype, least):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.2, 1, u.shape[-1])
    orthogonal = u.mT @ orthogonalise(u * values @ v, dtype) @ v.mT
    found = orthogonal.diagonal(dim1=1, dim2=2)
    assert found.min() > least
    assert found.max() < 1.3
    assert (orthogonal - torch.diag_embed(found)).abs().max() < (1e-4 if dtype == torch.float32 else 0.2)


def test_hidden_layers_step_in_all_directions_alike_and_the_others_as_with_adamw():
    with_muon, with_adamw = make_state("muon"), make_state("adamw")
    before = {name: weight.clone() for name, weight in with_muon.model.named_parameters()}
    for state in (with_muon, with_adamw):
        train(state, 1)
    other = dict(with_adamw.model.named_parameters())
    for name, weight in with_muon.model.named_parameters():
        step = (weight - before[name]).detach()
        if name in HIDDEN:
            # An AdamW step has about this size.
            assert step.square().mean().sqrt() == pytest.approx(0.2 * RATE, rel=0.25), name
            values = torch.linalg.svdvals(step.flatten(1))
            live = values[values > 1e-4 * values.max()]  # units that are never active have no gradient
            assert len(live) >= len(values) / 2, name
            assert live.min() > 0.3 * live.max(), name
        else:
            assert torch.allclose(weight, other[name], atol=1e-6), name


def test_other_weights_take_adamws_steps():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    optimizers = [Muon([{"params": [ours], "weight_decay": 0.1}], RATE, torch.float32)]
    optimizers.append(torch.optim.AdamW([{"params": [theirs], "weight_decay": 0.1}], lr=RATE))
    for _ in range(20):
        ours.grad = torch.randn(5, 3)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_resumed_muon_goes_on_with_the_same_bits(tmp_path):
    whole, first, resumed = (make_state("muon") for _ in range(3))
    train(whole, 5)
    train(first, 2)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(resumed, 3)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_step_reads_nothing_from_a_gpu_and_mixes_no_devices():
    with FakeTensorMode():
        weights = [torch.nn.Parameter(torch.empty(shape, device="cuda")) for shape in ((8, 4, 3, 3), (8, 4, 3, 3), (5, 9))]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        groups = [{"params": weights[:2], "hidden": True, "weight_decay": 0.1}, {"params": weights[2:]}]
        Muon(groups, RATE, torch.bfloat16).step()
        assert {weight.device.type for weight in weights} == {"cuda"}
