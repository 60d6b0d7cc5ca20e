"""Train one fold: a plain loop, resumable at every epoch, the same bits on the CPU whether interrupted or not."""

import json
import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.files import write_text
from foldmark.core.metrics import METRICS, compute_scores
from foldmark.models.checkpoint import load_latest_checkpoint, push_checkpoint
from foldmark.models.device import peak_memory_mb
from foldmark.models.inference import predict_points
from foldmark.models.net import count_parameters
from foldmark.models.weights import load_fold, load_pretrained
from foldmark.runs.binding import describe_files, describe_fold, find_difference
from foldmark.runs.run import Run, find_start
from foldmark.train.batches import Batch, TrainingFaces, load_batches
from foldmark.train.finished import write_metrics
from foldmark.train.fold_data import FoldData
from foldmark.train.listener import Listener
from foldmark.train.speed import choose_speed
from foldmark.train.state import TrainState, is_finite, learning_rate, new_state, training_step, update_average


def train_fold(run: Run, data: FoldData, device: torch.device, listeners: Sequence[Listener] = ()) -> dict:
    """Train a fold from where it stands to its end and return its summary. Raises UserError where training diverges, and for
    a checkpoint that is not this fold's."""
    config, folder = run.config, run.fold(data.fold)
    binding = describe_fold(config, run.faces, run.folds, data.fold)
    state = new_state(config, data.mean_crop, config.train.seed + data.fold, choose_speed(run, device), device)
    history = resume(state, run, data.fold, binding)
    faces = TrainingFaces(run, data)
    for listener in listeners:
        listener.begin(len(history))
    for epoch in range(len(history), config.train.epochs):
        row, points_px = train_epoch(state, run, faces, epoch, listeners), None
        if epoch + 1 == config.train.epochs or (epoch + 1) % config.train.validate_every == 0:
            points_px, _ = predict_points(
                state.averaged, run.store, data.held_out_rows, simplify_prediction(config), run.faces.markup
            )
            row |= score_held_out(points_px, run, data)
        history.append(row)
        push_checkpoint(folder, {**state.state_dict(), "history": history, "binding": binding})
        write_metrics(folder, history)
        for listener in listeners:
            listener.epoch(row, points_px)
    # Again, for a run that was killed between its checkpoint and its metrics.
    write_metrics(folder, history)
    summary = predict_held_out(state, run, data, history)
    # The optimizer's state is two thirds of the file and of no use any more.
    push_checkpoint(folder, {"averaged": state.averaged.state_dict(), "history": history, "binding": binding})
    for listener in listeners:
        listener.end(summary)
    # Last, because it marks the fold as finished.
    write_text(folder.summary_file, json.dumps({**summary, "binding": binding, "files": describe_files(folder)}, indent=1))
    folder.previous_checkpoint.unlink(missing_ok=True)
    return summary


def resume(state: TrainState, run: Run, fold: int, binding: dict) -> list[dict]:
    """Load the fold's last checkpoint or, if it has none, the weights to start from; the rows of metrics.csv so far. Raises
    UserError for a checkpoint of another fold, config, split or data set than `binding` describes."""
    folder = run.fold(fold)
    stored = load_latest_checkpoint(folder)
    if stored:
        difference = find_difference(stored.get("binding"), binding)
        try:
            if not difference:
                state.load_state_dict(stored)
                return list(stored["history"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            difference = "another program or model"
        raise UserError(
            f"{folder.checkpoint}: was made with {difference}; put this fold's own checkpoint back, or remove {folder.path} and "
            "run make train again."
        )
    if run.config.model.weights:
        load_pretrained(state.model.backbone, run.config.model.weights)
    elif run.config.train.start:
        load_fold(state.model, find_start(run.places, run.config.train.start, run.faces, run.folds).fold(fold))
    state.averaged.load_state_dict(state.model.state_dict())
    return []


def train_epoch(state: TrainState, run: Run, faces: TrainingFaces, epoch: int, listeners: Sequence[Listener]) -> dict:
    """Train on each face of the fold once; the epoch's row of metrics.csv, not yet validated."""
    train, data = run.config.train, faces.data
    steps = len(data.training_rows) // train.batch
    started, losses, errors, rate = time.perf_counter(), [], [], 0.0
    state.model.train()
    for number, batch in enumerate(load_batches(faces, epoch, state.device)):
        step = epoch * steps + number
        rate = train.lr_factor * learning_rate(train, step, train.epochs * steps)
        state.set_learning_rate(rate)
        weight = data.face_weight[batch.rows].to(state.device)
        loss, points_crop = training_step(state, run.config, batch.crops, batch.points_crop, weight)
        update_average(state.averaged, state.model, train.ema, step)
        if not math.isfinite(loss):
            names = ", ".join(run.faces.pictures[row] for row in batch.rows)
            raise explain_divergence(run, data.fold, epoch, f"the loss is {loss} in epoch {epoch + 1}, in the batch of {names}")
        losses.append(loss)
        errors.append(score_training_batch(points_crop, batch, run, data))
        for listener in listeners:
            listener.batch(epoch + (number + 1) / steps, errors[-1]["train_mae_px"])
    # The last step may have ruined the weights after its loss was computed.
    if not is_finite(state.averaged):
        raise explain_divergence(run, data.fold, epoch, f"the weights are not finite after epoch {epoch + 1}")
    seconds, memory = time.perf_counter() - started, peak_memory_mb(state.device)
    return {
        "epoch": epoch + 1,
        "loss": float(np.mean(losses)),
        **{key: float(np.mean([batch[key] for batch in errors])) for key in errors[0]},
        "lr": rate,
        "seconds": round(seconds, 2),
        "faces_per_second": round(steps * train.batch / seconds, 1),
        "memory_mb": memory and round(memory),
        **dict.fromkeys([*METRICS, "mse_crop"]),
    }


def explain_divergence(run: Run, fold: int, epoch: int, what: str) -> UserError:
    fix = 'resume at a lower rate with SET="train.lr_factor=0.3"'
    return UserError(f"{run.fold(fold).path}: {what}; its checkpoint is of epoch {epoch}: {fix}.")


def simplify_prediction(config: Config) -> Config:
    """The config with the plainest prediction, which is enough to see how training goes."""
    return config.model_copy(update={"predict": config.predict.model_copy(update={"realign": 0, "flip": False, "shift": 0})})


def score_training_batch(points_crop: torch.Tensor, batch: Batch, run: Run, data: FoldData) -> dict[str, float]:
    """The training figures of a batch: MAE in original pixels, MSE relative to the box and in crop pixels squared."""
    difference_crop = (points_crop - batch.points_crop).cpu().numpy()
    difference_px = difference_crop * data.px_per_crop[batch.rows][:, None]
    return {
        "train_mae_px": float(np.abs(difference_px).mean()),
        "train_mse": float(np.square(difference_px / run.faces.boxes_px[batch.rows][:, None, 2:]).mean()),
        "train_mse_crop": float(np.square(difference_crop).mean()),
    }


def score_held_out(points_px: np.ndarray, run: Run, data: FoldData) -> dict[str, float]:
    """The figures of predictions (n, k, 2) for the fold's held-out faces; mse_crop in crop pixels squared, the unit that the
    course's losses are in."""
    faces = run.faces.take(data.held_out_rows)
    difference_crop = (points_px - faces.points_px) / data.px_per_crop[data.held_out_rows][:, None]
    return {**compute_scores(points_px, faces), "mse_crop": float(np.square(difference_crop).mean())}


def predict_held_out(state: TrainState, run: Run, data: FoldData, history: list[dict]) -> dict:
    """Predict the held-out faces as the config sets, write these out-of-fold predictions, and return the fold's figures."""
    points_px, spread_px = predict_points(state.averaged, run.store, data.held_out_rows, run.config, run.faces.markup)
    run.fold(data.fold).write_oof(run.faces.take(data.held_out_rows), points_px, spread_px)
    return {
        "fold": data.fold,
        "faces": len(data.held_out_rows),
        **score_held_out(points_px, run, data),
        "in_one_pass": {key: history[-1][key] for key in ("mae_px", "nme")},
        "epochs": len(history),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "parameters": count_parameters(state.averaged),
    }
