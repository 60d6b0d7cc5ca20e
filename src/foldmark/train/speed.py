"""How fast the ways to compute are here, and which one a run was trained with."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.files import digest, lock_file, read_kept, write_text
from foldmark.models.device import Speed, Step, describe_device, measure_speed
from foldmark.runs.run import Run
from foldmark.train.state import new_state, training_step

log = logging.getLogger(__name__)


Measure = Callable[[Config, int, torch.device, int], Speed]


def choose_speed(run: Run, device: torch.device, measure: Measure | None = None, hardware: str | None = None) -> Speed:
    """The way to compute that this run was begun with, because resuming must not change it; for a new run the fastest one here,
    measured once for models of its kind.

    measure: `measure_training` on another machine, of this hardware.
    """
    path, points = run.folder.speed_file(device.type), run.faces.markup.count
    # One process measures, undisturbed, and the others take its result.
    with lock_file(run.places.cache / "speed"):
        speed = read_speed(path)
        if speed:
            return speed
        if any(run.folder.path.glob("fold*/last.pt")):
            log.info(f"{path}: not there or damaged, so folds that are resumed may end with other last bits.")
        train = run.config.train
        kind = [run.config.model.model_dump(), run.config.crop.size, train.batch, train.compile, points]
        kind.append(hardware or describe_device(device))
        measured = run.places.cache / f"speed-{digest(kind)}.json"
        steps = train.epochs * len(run.training_rows(0)) // train.batch
        speed = read_speed(measured) or (measure or measure_training)(run.config, points, device, steps)
        # Only of a long training all ways are measured.
        for file in (path, measured) if len(speed.steps_per_second) > 1 else (path,):
            write_text(file, speed.model_dump_json(indent=1))
        return speed


def read_speed(path: Path) -> Speed | None:
    """A measured speed; None if it is not there, or is damaged, which is logged."""
    return read_kept(path, Speed.model_validate_json)


def measure_training(config: Config, points: int, device: torch.device, steps: int) -> Speed:
    """The fastest way to train a model of this config with so many points for so many steps."""
    (width, height), batch = config.crop.size, config.train.batch
    # Noise rather than zeros: nearer to what training will see.
    crops = torch.randint(256, (batch, 1, height, width), dtype=torch.uint8, device=device)
    truth_crop = torch.zeros(batch, points, 2, device=device)
    weight = torch.ones(batch, device=device)

    def make_step(speed: Speed) -> Step:
        state = new_state(config, np.zeros((points, 2)), config.train.seed, speed, device)
        state.model.train()
        return lambda: training_step(state, config, crops, truth_crop, weight)

    return measure_speed(make_step, device, steps, config.train.compile)
