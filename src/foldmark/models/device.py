"""Which device to compute on, and which of its ways to compute is the fastest: measured, not guessed."""

import platform
import sys
import time
from collections.abc import Callable
from itertools import product

import torch
from pydantic import BaseModel

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE


class Speed(BaseModel, frozen=True):
    """How to run the model: memory layout and precision, with the steps per second that decided."""

    channels_last: bool
    bf16: bool
    steps_per_second: dict[str, float] = {}

    @property
    def label(self) -> str:
        return f"{'channels_last' if self.channels_last else 'contiguous'} {'bf16' if self.bf16 else 'float32'}"


Step = Callable[[], object]
MakeStep = Callable[[Speed], Step]


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises UserError for a device that is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"DEVICE={name}: not a device; use auto, cpu, cuda, cuda:1 or mps.") from None
    there = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not there.get(device.type, False):
        raise UserError(f"DEVICE={name}: this machine has no such device; use DEVICE=auto.")
    return device


def measure_speed(make_step: MakeStep, device: torch.device, seconds: float = 0.6) -> Speed:
    """Time training steps with and without channels_last and bf16 and pick the fastest.

    make_step(speed) gives a function that does one step in that way. A change from the plain way must win by 3 %, so that
    noise does not decide.
    """
    ways, rates = {}, {}
    for channels_last, bf16 in product((False, True), (False, True)):
        # Without bf16 instructions the processor emulates them, far too slowly to be worth measuring.
        if bf16 and not _has_bf16(device):
            continue
        way = Speed(channels_last=channels_last, bf16=bf16)
        ways[way.label], rates[way.label] = way, round(_measure_rate(make_step(way), device, seconds), 2)
    plain, best = next(iter(rates)), max(rates, key=rates.__getitem__)
    chosen = ways[best if rates[best] >= 1.03 * rates[plain] else plain]
    return chosen.model_copy(update={"steps_per_second": rates})


def describe_device(device: torch.device) -> str:
    """The hardware and the versions that a measured speed depends on, in one line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {platform.processor()}"
    return f"{device}: {name}, {torch.get_num_threads()} threads; torch {torch.__version__}, {platform.system()}"


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory in use so far: on CUDA that of the device, else the process's; None on Windows, which does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MEGABYTE if sys.platform == "darwin" else 1024)  # bytes there, kilobytes elsewhere


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _measure_rate(step: Step, device: torch.device, seconds: float) -> float:
    for _ in range(2):
        step()
    synchronise(device)
    start, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - start < seconds:
        step()
        steps += 1
        if device.type != "cpu" and steps % 10:
            continue
        synchronise(device)
    return steps / (time.perf_counter() - start)
