"""Which device to compute on, and which of its ways to compute is the fastest: measured, not guessed."""

import logging
import platform
import sys
import time
from collections.abc import Callable
from itertools import product
from typing import Any, Literal

import torch
from pydantic import BaseModel, model_validator

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE

log = logging.getLogger(__name__)

# What autocast computes in; None: no autocast.
PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# Backends of torch.compile: CUDA graphs of the model's own kernels, and kernels that are generated.
COMPILERS = {"graphs": "cudagraphs", "compile": "inductor"}
# Seconds that training must take for another way to be measured, or to be compiled.
WORTH_MEASURING, WORTH_COMPILING = 30, 600


class Speed(BaseModel, frozen=True):
    """How to run the model: memory layout, precision and compiler, with the steps per second that decided."""

    channels_last: bool
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    compiler: Literal["none", "graphs", "compile"] = "none"
    steps_per_second: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_earlier(cls, values: Any) -> Any:
        """Earlier versions wrote bf16: true or false."""
        if isinstance(values, dict) and values.get("bf16") is True:
            return {**values, "precision": "bf16"}
        return values

    @property
    def label(self) -> str:
        compiled = "" if self.compiler == "none" else f" {self.compiler}"
        return f"{'channels_last' if self.channels_last else 'contiguous'} {self.precision}{compiled}"

    @property
    def dtype(self) -> torch.dtype | None:
        return PRECISIONS[self.precision]


Step = Callable[[], object]
MakeStep = Callable[[Speed], Step]


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU, where each has to compute something first: PyTorch may have no kernels for
    a card. Raises UserError for a device that is not there or cannot compute."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        for kind in [kind for kind, there in (("cuda", cuda), ("mps", mps)) if there]:
            problem = find_problem(torch.device(kind))
            if problem is None:
                return torch.device(kind)
            log.warning(f"{kind}: this PyTorch cannot compute on it ({problem}), so the CPU is used.")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"DEVICE={name}: not a device; use auto, cpu, cuda, cuda:1 or mps.") from None
    there = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not there.get(device.type, False):
        raise UserError(f"DEVICE={name}: this machine has no such device; use DEVICE=auto.")
    problem = find_problem(device)
    if problem:
        raise UserError(f"DEVICE={name}: this PyTorch cannot compute on it ({problem}); use DEVICE=auto.")
    return device


def find_problem(device: torch.device) -> str | None:
    """What a device answers to a small convolution, if it fails; None if it computes."""
    try:
        torch.nn.functional.conv2d(torch.ones(1, 1, 4, 4, device=device), torch.ones(1, 1, 3, 3, device=device)).sum().item()
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0]
    return None


def measure_speed(make_step: MakeStep, device: torch.device, steps: int, compiler: str = "auto", seconds: float = 0.6) -> Speed:
    """Time training steps in each layout and precision that the device has, and pick the fastest for so many steps.

    make_step(speed) gives a function that does one step in that way. A change from the plain way must win by 3 %, so that
    noise does not decide. Where all steps take less than half a minute the plain way is taken. compiler: a row of COMPILERS,
    none, or auto, which measures them on CUDA where the steps take ten minutes and leaves out one that fails.
    """
    rates: dict[str, float] = {}

    def measure(speed: Speed) -> float:
        rates[speed.label] = round(_measure_rate(make_step(speed), device, seconds, steps), 2)
        return rates[speed.label]

    first = "none" if compiler == "auto" else compiler
    best = Speed(channels_last=False, compiler=first)
    rate = measure(best)
    threshold = 1.03 * rate
    if steps / rate > WORTH_MEASURING:
        for channels_last, precision in list(product((False, True), list_precisions(device)))[1:]:
            speed = Speed(channels_last=channels_last, precision=precision, compiler=first)
            if measure(speed) >= max(threshold, rate):
                best, rate = speed, rates[speed.label]
    if compiler == "auto" and device.type == "cuda" and steps / rate > WORTH_COMPILING:
        for name in COMPILERS:
            speed = best.model_copy(update={"compiler": name})
            try:
                faster = measure(speed) >= 1.03 * rate
            except Exception as error:  # torch.compile raises nearly anything, such as for a missing C compiler
                log.info(f"train.compile={name}: fails on this machine ({str(error).partition(chr(10))[0]}), so it is not used.")
                continue
            if faster:
                best, rate = speed, rates[speed.label]
    return best.model_copy(update={"steps_per_second": rates})


def list_precisions(device: torch.device) -> list[str]:
    """float32 and the half precision that the device computes natively: bf16, or fp16 on CUDA cards before Ampere."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ["float32", "bf16"]
        return ["float32", "fp16"] if torch.cuda.get_device_capability(device) >= (7, 0) else ["float32"]
    # Without bf16 instructions the processor emulates them, far too slowly to be worth measuring.
    native = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["float32", "bf16"] if native else ["float32"]


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


def _measure_rate(step: Step, device: torch.device, seconds: float, planned: int) -> float:
    """Steps per second, measured for so many seconds, or for three steps where the planned ones are too few to be worth more."""
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
        if steps >= 3 and planned * (time.perf_counter() - start) < steps * WORTH_MEASURING / 2:
            break
    return steps / (time.perf_counter() - start)
