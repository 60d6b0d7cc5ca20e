"""The state of training: the model, the moving average of its weights, and the optimizer; one step of it; and which way to
compute steps is the fastest here."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from foldmark.core.config import Config
from foldmark.core.files import digest, lock_file, read_kept, write_text
from foldmark.core.tables import pick
from foldmark.models.device import COMPILERS, Speed, Step, describe_device, measure_speed
from foldmark.models.net import PointRegressor, build_model
from foldmark.models.small_maps import replace_small_map_convs
from foldmark.models.weights import torchvision_name
from foldmark.runs.run import Run
from foldmark.train.losses import LOSSES
from foldmark.train.optimizers import OPTIMIZERS, make_optimizer

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """A model in training, the moving average of its weights, its optimizer, and the way to compute."""

    model: PointRegressor
    averaged: PointRegressor
    optimizer: torch.optim.Optimizer
    speed: Speed
    scaler: torch.amp.GradScaler  # of fp16; does nothing in other precisions
    forward: Callable[[torch.Tensor], torch.Tensor]  # the model, compiled where `speed` says so

    @property
    def device(self) -> torch.device:
        return self.model.mean_points_crop.device

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, stored: dict) -> None:
        self.averaged.load_state_dict(stored["averaged"])
        # Only the averaged model is left if the fold was stopped on its very last steps, after training.
        if "optimizer" in stored:
            self.model.load_state_dict(stored["model"])
            self.optimizer.load_state_dict(stored["optimizer"])
        if stored.get("scaler"):
            self.scaler.load_state_dict(stored["scaler"])

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def check_names(config: Config) -> None:
    """Raise UserError if the config names a backbone, head, loss or optimizer that is not there, or a backbone that does not
    fit the other settings. Nothing is computed."""
    pick(LOSSES, config.train.loss, "train.loss")
    pick(OPTIMIZERS, config.train.optimizer, "train.optimizer")
    with torch.device("meta"):
        model = build_model(config, torch.zeros(1, 2), seed=0)
    if config.model.weights:
        torchvision_name(model.backbone)


def new_state(config: Config, mean_crop: np.ndarray, seed: int, speed: Speed, device: torch.device) -> TrainState:
    """A model with the weights of its seed, their average, which starts as the same, and the optimizer. mean_crop: (k, 2) mean
    training face."""
    model = build_model(config, torch.from_numpy(mean_crop), seed).to(device)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    if device.type == "cpu" and speed.precision == "bf16":
        replace_small_map_convs(model)
    optimizer = make_optimizer(model, config.train, speed)
    memory_format = torch.channels_last if speed.channels_last else torch.contiguous_format
    for one in (model, averaged):
        one.to(memory_format=memory_format)
    scaler = torch.amp.GradScaler(device.type, enabled=speed.precision == "fp16")
    forward: Callable[[torch.Tensor], torch.Tensor] = model
    if speed.compiler != "none":
        forward = torch.compile(model, backend=COMPILERS[speed.compiler], fullgraph=True, dynamic=False)
    return TrainState(model, averaged, optimizer, speed, scaler, forward)


def training_step(
    state: TrainState, config: Config, crops: torch.Tensor, truth_crop: torch.Tensor, face_weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the optimizer on crops (n, 1, height, width) with their true points (n, k, 2) and weights in the loss (n,);
    the loss, and the predicted points_crop (n, k, 2) before the step. Nothing is read from the device, so it need not wait."""
    points_crop = predict_batch(state, crops)
    loss = (compute_losses(config, points_crop, truth_crop) * face_weight).mean()
    state.optimizer.zero_grad()
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return loss.detach(), points_crop.detach()


def predict_batch(state: TrainState, crops: torch.Tensor) -> torch.Tensor:
    """points_crop (n, k, 2) in the precision of training."""
    with torch.autocast(crops.device.type, state.speed.dtype, enabled=state.speed.dtype is not None):
        return state.forward(crops)


def compute_losses(config: Config, points_crop: torch.Tensor, truth_crop: torch.Tensor) -> torch.Tensor:
    """The loss of each face (n,), in percent of the crop's width, so that it means the same at every crop size."""
    return pick(LOSSES, config.train.loss, "train.loss")((points_crop - truth_crop) * (100 / config.crop.size[0]))


@torch.no_grad()
def update_average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average (EMA) of weights and batch statistics, quicker at the start. Counts, such as that of the batches
    seen, stay as they are."""
    decay = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    slow, fast = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(slow, fast, 1 - decay)


def is_finite(model: nn.Module) -> bool:
    return all(bool(values.isfinite().all()) for values in model.state_dict().values())


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
