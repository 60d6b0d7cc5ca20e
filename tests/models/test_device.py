"""Which device is used, and which way to compute on it is chosen."""

import logging

import pytest
import torch

from foldmark.core.errors import UserError
from foldmark.models import device
from foldmark.models.device import Speed, list_precisions, measure_speed, pick_device

CPU = torch.device("cpu")


@pytest.fixture
def useless_card(monkeypatch):
    """A CUDA card that PyTorch sees but cannot compute on: here PyTorch's own answer to a card that is not there."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a card that works")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("useless_card")
def test_auto_passes_over_a_card_that_cannot_compute_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert pick_device("auto") == CPU
    (said,) = caplog.messages
    assert said.startswith("cuda: this PyTorch cannot compute on it (")
    assert said.endswith("so the CPU is used.")


@pytest.mark.usefixtures("useless_card")
def test_a_card_that_was_asked_for_and_cannot_compute_is_an_error():
    with pytest.raises(UserError, match=r"DEVICE=cuda: this PyTorch cannot compute on it .*; use DEVICE=auto\."):
        pick_device("cuda")


class Clock:
    """Time as far as steps let it pass, so that a busy machine does not decide."""

    now = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(device, "time", Clock)
    monkeypatch.setattr(Clock, "now", 0.0)


def make_step(seconds: dict[str, float]):
    """Steps that take so long in each way; which ways were tried."""
    tried = []

    def make(speed: Speed):
        tried.append(speed.label)
        return lambda: setattr(Clock, "now", Clock.now + seconds.get(speed.label, 0.02))

    return make, tried


def test_a_short_training_is_not_measured_in_every_way():
    make, tried = make_step({})
    speed = measure_speed(make, CPU, steps=100, seconds=0.05)
    assert tried == ["contiguous float32"]
    assert speed.label == "contiguous float32"


def test_three_steps_after_two_to_warm_up_are_enough_for_a_short_training():
    make, _ = make_step({})
    assert measure_speed(make, CPU, steps=100, seconds=0.6).steps_per_second == {"contiguous float32": 50}
    assert Clock.now == pytest.approx(5 * 0.02)


def test_the_fastest_way_is_taken_for_a_long_one():
    make, tried = make_step({"channels_last float32": 0.01})
    speed = measure_speed(make, CPU, steps=10**6, seconds=0.05)
    assert tried == [f"{layout} {name}" for layout in ("contiguous", "channels_last") for name in list_precisions(CPU)]
    assert speed.label == "channels_last float32"
    assert set(speed.steps_per_second) == set(tried)


def test_a_compiler_is_used_where_it_is_asked_for_and_tried_on_cuda_for_long_trainings_only(monkeypatch):
    make, tried = make_step({})
    assert measure_speed(make, CPU, steps=100, compiler="compile", seconds=0.05).label == "contiguous float32 compile"
    monkeypatch.setattr(device, "synchronise", lambda _: None)
    monkeypatch.setattr(device, "list_precisions", lambda _: ["float32"])
    cuda = torch.device("cuda")
    make, tried = make_step({"contiguous float32 graphs": 0.01})
    assert measure_speed(make, cuda, steps=10**6, seconds=0.05).label == "contiguous float32 graphs"
    assert tried[-2:] == ["contiguous float32 graphs", "contiguous float32 compile"]
    make, tried = make_step({})
    measure_speed(make, cuda, steps=10**4, seconds=0.05)
    assert tried == ["contiguous float32", "channels_last float32"]


def test_a_compiler_that_fails_is_left_out_and_named(monkeypatch, caplog):
    monkeypatch.setattr(device, "synchronise", lambda _: None)
    monkeypatch.setattr(device, "list_precisions", lambda _: ["float32"])
    make, _ = make_step({"contiguous float32 compile": 0.01})

    def fail_with_graphs(speed: Speed):
        if speed.compiler == "graphs":
            raise RuntimeError("no such backend\nand more")
        return make(speed)

    with caplog.at_level(logging.INFO):
        speed = measure_speed(fail_with_graphs, torch.device("cuda"), steps=10**6, seconds=0.05)
    assert speed.label == "contiguous float32 compile"
    assert caplog.messages == ["train.compile=graphs: fails on this machine (no such backend), so it is not used."]


@pytest.mark.parametrize(
    ("capability", "bf16", "precision"),
    [((6, 0), False, None), ((7, 0), False, "fp16"), ((7, 5), False, "fp16"), ((8, 0), True, "bf16")],
)
def test_half_precision_is_bf16_where_it_is_native_and_else_fp16_from_volta_on(monkeypatch, capability, bf16, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert list_precisions(torch.device("cuda")) == ["float32", *([precision] if precision else [])]


def test_a_speed_that_an_earlier_version_wrote_is_read():
    assert Speed.model_validate_json('{"channels_last": true, "bf16": true}').label == "channels_last bf16"
    assert Speed.model_validate_json('{"channels_last": false, "bf16": false}').label == "contiguous float32"
