"""Train one fold: a plain loop, resumable at every epoch, the same bits on the CPU whether interrupted or not."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas
import torch
from torch import nn
from torch.utils.data import DataLoader

from foldmark.core import geometry
from foldmark.core.config import Config, TrainConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import digest, write_text
from foldmark.core.metrics import METRICS, scores
from foldmark.models.checkpoint import PREVIOUS, latest_checkpoint, push_checkpoint, save_checkpoint
from foldmark.models.device import Speed, measure_speed, peak_memory_mb
from foldmark.models.inference import predict_points
from foldmark.models.net import build_model, parameters
from foldmark.models.weights import load_fold, load_pretrained
from foldmark.runs.experiment import CACHE
from foldmark.runs.run import Run, write_oof
from foldmark.train.batches import TrainingFaces
from foldmark.train.losses import LOSSES

# After each epoch: its row of metrics.csv and, where it was validated, the held-out faces' points_px.
OnEpoch = Callable[[dict, np.ndarray | None], None]
# After each batch: epochs done (with a fraction) and the batch's training MAE in original pixels.
OnBatch = Callable[[float, float], None]


@dataclass(frozen=True)
class FoldData:
    """What one fold trains on and is held to: row numbers into the run's faces, and where the points are."""

    training_rows: np.ndarray
    held_out_rows: np.ndarray
    points_store: np.ndarray  # (n, k, 2) of all faces
    mean_crop: np.ndarray  # (k, 2) mean training face
    px_per_crop: np.ndarray  # (n, 2) original pixels a crop pixel, x and y
    face_weight: torch.Tensor  # (n,) what a face counts in the loss, 1 on average over the training faces


def train_fold(run: Run, fold: int, device: torch.device, on_epoch: OnEpoch, on_batch: OnBatch) -> dict:
    """Train a fold from where it stands to its end and return its summary. Raises UserError on a loss that is not finite."""
    config, folder = run.config, run.fold_folder(fold)
    data = fold_data(run, fold)
    faces = training_faces(run, data)
    model, averaged, optimizer = fresh(run, data, fold, device)
    held_out = run.faces.take(data.held_out_rows)
    steps_per_epoch = len(data.training_rows) // config.train.batch

    history, best = [], math.inf
    stored = latest_checkpoint(folder)
    if stored:
        averaged.load_state_dict(stored["averaged"])
        history, best = stored["history"], stored["best"]
        # Not there if the fold was stopped on its very last steps, after training.
        if "optimizer" in stored:
            model.load_state_dict(stored["model"])
            optimizer.load_state_dict(stored["optimizer"])
    elif config.train.start:
        load_fold(model, run, fold)
        averaged.load_state_dict(model.state_dict())
    speed = fold_speed(run, device)
    as_fast_as_possible(model, speed), as_fast_as_possible(averaged, speed)

    # During training one pass a face is enough to see how it goes.
    plain = config.model_copy(update={"predict": config.predict.model_copy(update={"realign": 0, "flip": False, "shift": 0})})
    for epoch in range(len(history), config.train.epochs):
        started, losses, errors = time.perf_counter(), [], []
        model.train()
        for batch, (crops, truth_crop, rows) in enumerate(batches(faces, data, fold, epoch, config, device)):
            step = epoch * steps_per_epoch + batch
            for group in optimizer.param_groups:
                group["lr"] = config.train.lr_factor * learning_rate(config.train, step, config.train.epochs * steps_per_epoch)
            weight = data.face_weight[rows].to(device)
            loss, points_crop = training_step(model, optimizer, crops, truth_crop, weight, config, speed)
            average(averaged, model, config.train.ema, step)
            losses.append(loss)
            if not math.isfinite(loss):
                names = ", ".join(run.faces.pictures[row] for row in rows)
                raise UserError(
                    f"{folder}: the loss is {loss} in epoch {epoch + 1}, in the batch of {names}; "
                    f'it stands at epoch {epoch}: go on at a lower rate with SET="train.lr_factor=0.3".'
                )
            difference_crop = (points_crop - truth_crop).cpu().numpy()
            errors.append(batch_errors(difference_crop, data.px_per_crop[rows], run.faces.boxes_px[rows]))
            on_batch(epoch + (batch + 1) / steps_per_epoch, errors[-1]["train_mae_px"])
        seconds, memory = time.perf_counter() - started, peak_memory_mb(device)

        row = {
            "epoch": epoch + 1,
            "loss": float(np.mean(losses)),
            **{key: float(np.mean([batch[key] for batch in errors])) for key in errors[0]},
            "lr": optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 2),
            "faces_per_second": round(steps_per_epoch * config.train.batch / seconds, 1),
            "memory_mb": memory and round(memory),
            **dict.fromkeys([*METRICS, "mse_crop"]),
        }
        points_px = None
        if epoch + 1 == config.train.epochs or (epoch + 1) % config.train.validate_every == 0:
            points_px, _ = predict_points(averaged, run.store, data.held_out_rows, plain, run.faces.markup, device)
            row |= scores(points_px, held_out)
            row["mse_crop"] = mse_crop(points_px, held_out, data.px_per_crop[data.held_out_rows])
            if row["nme"] < best:
                best = row["nme"]
                save_checkpoint(folder / "best.pt", {"averaged": averaged.state_dict(), "epoch": epoch + 1, "nme": best})
        history.append(row)
        state = {"model": model.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
        push_checkpoint(folder, {**state, "history": history, "best": best})
        write_text(folder / "metrics.csv", pandas.DataFrame(history).to_csv(index=False))
        on_epoch(row, points_px)

    # Again, for a run that was killed between its checkpoint and its metrics.
    write_text(folder / "metrics.csv", pandas.DataFrame(history).to_csv(index=False))
    return finish(run, fold, averaged, data, history, best, device)


def finish(run: Run, fold: int, averaged: nn.Module, data: FoldData, history: list[dict], best: float, device) -> dict:
    """Predict the held-out faces and write the fold's figures; the summary comes last and marks the fold as finished."""
    folder = run.fold_folder(fold)
    held_out = run.faces.take(data.held_out_rows)
    points_px, spread_px = predict_points(averaged, run.store, data.held_out_rows, run.config, run.faces.markup, device)
    write_oof(folder, data.held_out_rows, points_px, spread_px)
    summary = {
        "fold": fold,
        "faces": len(data.held_out_rows),
        **scores(points_px, held_out),
        "mse_crop": mse_crop(points_px, held_out, data.px_per_crop[data.held_out_rows]),
        "in_one_pass": {key: history[-1][key] for key in ("mae_px", "nme")},
        "epochs": len(history),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "parameters": parameters(averaged),
    }
    # The optimizer's state is two thirds of the file and of no use any more.
    push_checkpoint(folder, {"averaged": averaged.state_dict(), "history": history, "best": best})
    write_text(folder / "summary.json", json.dumps(summary, indent=1))
    (folder / PREVIOUS).unlink(missing_ok=True)
    return summary


def fold_data(run: Run, fold: int) -> FoldData:
    training_rows = run.training_rows(fold)
    if len(training_rows) < run.config.train.batch:
        raise UserError(f"train.batch: {run.config.train.batch} is more than the {len(training_rows)} training faces; lower it.")
    store_to_crop = geometry.centre_affine(run.store.size, run.config.crop.size)
    crop_to_px = geometry.invert(geometry.compose(store_to_crop, run.store.px_to_store))
    points_store = geometry.apply(run.store.px_to_store, run.faces.points_px)
    px_per_crop = crop_to_px[:, [0, 1], [0, 1]]
    # The competition counts pixels of the picture, so a large face counts more; NME counts all faces alike.
    weight = px_per_crop.mean(axis=1) ** run.config.train.large_faces
    return FoldData(
        training_rows=training_rows,
        held_out_rows=run.held_out_rows(fold),
        points_store=points_store,
        mean_crop=geometry.apply(store_to_crop, points_store[training_rows]).mean(axis=0),
        px_per_crop=px_per_crop,
        face_weight=torch.from_numpy(weight / weight[training_rows].mean()).float(),
    )


def training_faces(run: Run, data: FoldData) -> TrainingFaces:
    config = run.config
    return TrainingFaces(
        run.store, data.points_store, data.mean_crop, run.faces.markup, config.augment, config.crop.size, config.train.seed
    )


def batch_errors(difference_crop: np.ndarray, px_per_crop: np.ndarray, boxes_px: np.ndarray) -> dict[str, float]:
    """The training figures of a batch: MAE in original pixels, MSE relative to the box and in crop pixels squared."""
    difference_px = difference_crop * px_per_crop[:, None]
    return {
        "train_mae_px": float(np.abs(difference_px).mean()),
        "train_mse": float(np.square(difference_px / boxes_px[:, None, 2:]).mean()),
        "train_mse_crop": float(np.square(difference_crop).mean()),
    }


def mse_crop(points_px: np.ndarray, faces: Faces, px_per_crop: np.ndarray) -> float:
    """Mean squared error in crop pixels squared, the unit that the course's losses are in."""
    return float(np.square((points_px - faces.points_px) / px_per_crop[:, None]).mean())


def fresh(run: Run, data: FoldData, fold: int, device: torch.device) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A net at its seed, its averaged twin, and the optimizer."""
    train = run.config.train
    nets = [build_model(run.config, torch.from_numpy(data.mean_crop), train.seed + fold).to(device) for _ in range(2)]
    if run.config.model.weights:
        for net in nets:
            load_pretrained(net.backbone, run.config.model.weights)
    decayed = [weight for weight in nets[0].parameters() if weight.ndim > 1]
    free = [weight for weight in nets[0].parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[train.optimizer](groups, lr=train.lr, fused=True)
    return nets[0], nets[1].eval().requires_grad_(False), optimizer


def batches(faces: TrainingFaces, data: FoldData, fold: int, epoch: int, config: Config, device) -> Iterator[tuple]:
    """The epoch's batches in an order that seed, fold and epoch decide: crops, points_crop, row numbers."""
    train = config.train
    order = np.random.default_rng([train.seed, fold, epoch]).permutation(data.training_rows)
    rows = order[: len(order) // train.batch * train.batch].reshape(-1, train.batch)
    loader = DataLoader(
        faces,
        batch_sampler=[[(int(row), epoch) for row in batch] for batch in rows],
        num_workers=loader_workers(train.workers, device),
        pin_memory=device.type == "cuda",
    )
    for (crops, points_crop), batch_rows in zip(loader, rows, strict=True):
        yield crops.to(device, non_blocking=True), points_crop.to(device, non_blocking=True), batch_rows


def loader_workers(asked: int | None, device: torch.device) -> int:
    """On the CPU the net needs every core, and augmenting takes a few percent of its time: no extra process pays."""
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else min(8, torch.get_num_threads())


def training_step(model, optimizer, crops, truth_crop, face_weight, config, speed: Speed) -> tuple[float, torch.Tensor]:
    with torch.autocast(crops.device.type, torch.bfloat16, enabled=speed.bf16):
        points_crop = model(crops)
    # In percent of the crop's width, so that a loss means the same at every crop size.
    losses = LOSSES[config.train.loss]((points_crop - truth_crop) * (100 / config.crop.size[0]))
    loss = (losses * face_weight).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), points_crop.detach()


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch statistics (EMA), quicker at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    slow, fast = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(slow, fast, 1 - decay)
    for count, now in pairs:
        if not count.is_floating_point():
            count.copy_(now)


def learning_rate(train: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine to nearly zero, or constant."""
    warmup = train.warmup * steps
    if step < warmup:
        return train.lr * (step + 1) / warmup
    if train.schedule == "constant":
        return train.lr
    return train.lr * max(1e-3, 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


def fold_speed(run: Run, device: torch.device) -> Speed:
    """The fastest way to run this net here, measured once and kept for nets of its kind; the run folder has its own copy,
    because resuming must not change it."""
    path = run.folder / f"speed-{device.type}.json"
    if not path.exists():
        config = run.config
        kind = [config.model.model_dump(), config.crop.size, config.train.batch, run.faces.markup.count]
        kept = CACHE / f"speed-{digest([kind, str(device), torch.__version__, torch.get_num_threads()])}.json"
        if not kept.exists():
            write_text(kept, json.dumps(measured_speed(run, device).as_dict(), indent=1))
        write_text(path, kept.read_text())
    return Speed(**json.loads(path.read_text()))


def measured_speed(run: Run, device: torch.device) -> Speed:
    data, (width, height), batch = fold_data(run, 0), run.config.crop.size, run.config.train.batch
    # Noise rather than zeros: nearer to what training will see.
    crops = torch.randint(256, (batch, 1, height, width), dtype=torch.uint8, device=device)
    truth_crop = torch.zeros(batch, run.faces.markup.count, 2, device=device)
    weight = torch.ones(batch, device=device)

    def make_step(channels_last: bool, bf16: bool):
        speed = Speed(channels_last, bf16, {})
        model, _, optimizer = fresh(run, data, 0, device)
        as_fast_as_possible(model, speed).train()
        return lambda: training_step(model, optimizer, crops, truth_crop, weight, run.config, speed)

    return measure_speed(make_step, device)


def as_fast_as_possible(model: nn.Module, speed: Speed) -> nn.Module:
    return model.to(memory_format=torch.channels_last if speed.channels_last else torch.contiguous_format)
