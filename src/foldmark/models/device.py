"""Which device to compute on, and which of its ways to compute is the fastest: measured, not guessed."""

import sys
import time
from dataclasses import asdict, dataclass
from itertools import product

import torch

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE


@dataclass(frozen=True)
class Speed:
    """How to run the net: memory layout and precision, with the steps per second that decided."""

    channels_last: bool
    bf16: bool
    steps_per_second: dict[str, float]

    def as_dict(self) -> dict:
        return asdict(self)


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


def measure_speed(make_step, device: torch.device, seconds: float = 0.6) -> Speed:
    """Time training steps with and without channels_last and bf16 and pick the fastest.

    make_step(channels_last, bf16) gives a function that does one step. A change from the plain way must win by 3 %,
    so that noise does not decide.
    """
    rates = {}
    for channels_last, bf16 in product((False, True), (False, True)):
        # Without bf16 instructions the processor emulates them, far too slowly to be worth measuring.
        if bf16 and not _has_bf16(device):
            continue
        rates[channels_last, bf16] = _rate(make_step(channels_last, bf16), device, seconds)
    best, plain = max(rates, key=rates.get), (False, False)
    if rates[best] < 1.03 * rates[plain]:
        best = plain
    return Speed(*best, {_name(*way): round(rate, 2) for way, rate in rates.items()})


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


def _name(channels_last: bool, bf16: bool) -> str:
    return ("channels_last" if channels_last else "contiguous") + (" bf16" if bf16 else " float32")


def _rate(step, device: torch.device, seconds: float) -> float:
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
