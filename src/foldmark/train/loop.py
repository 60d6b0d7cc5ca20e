"""Train one fold: a plain loop over steps, resumable at every checkpoint, the same bits on the CPU whether interrupted or not.

A step reads nothing from the device. Its figures are read every few seconds and where an epoch is validated.
"""

import json
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from foldmark.core.config import Config
from foldmark.core.errors import DivergedError, UserError
from foldmark.core.files import digest, write_text
from foldmark.core.metrics import compute_scores
from foldmark.models.checkpoint import load_latest_checkpoint, push_checkpoint
from foldmark.models.device import peak_memory_mb
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.net import count_parameters
from foldmark.models.trained import load_aligner, read_aligner
from foldmark.models.weights import load_fold, load_pretrained
from foldmark.runs.binding import describe_files, describe_fold, find_difference
from foldmark.runs.run import Run, find_source_fold
from foldmark.train.batches import Batch, TrainingFaces, load_batches
from foldmark.train.checkpoints import CheckpointWriter, write_metrics
from foldmark.train.device_batches import cut_batches
from foldmark.train.fold_data import FoldData
from foldmark.train.listener import Listener
from foldmark.train.optimizers import learning_rate
from foldmark.train.plan import plan_order
from foldmark.train.progress import NotFiniteError, Progress
from foldmark.train.state import choose_speed, is_finite, new_state, training_step, update_average

# Seconds between two readings of the device. An epoch that takes longer than the second is read at its end.
READ_EVERY, LONG_EPOCH = 5.0, 1.0


def train_fold(run: Run, data: FoldData, device: torch.device, listeners: Sequence[Listener] = ()) -> dict:
    """Train a fold from where it stands to its end and return its summary. Raises UserError where training diverges, and for
    a checkpoint that is not this fold's."""
    folder, training = run.fold(data.fold), FoldTraining(run, data, device, listeners)
    training.resume()
    for listener in listeners:
        listener.begin(len(training.progress.history))
    with CheckpointWriter(folder, run.config.train.checkpoint_seconds) as writer:
        training.train(writer)
        writer.finish()
    # Again, for a run that was killed between its checkpoint and its metrics.
    write_metrics(folder, training.progress.history)
    summary = training.predict_held_out()
    # The optimizer's state is two thirds of the file and of no use any more.
    state = training.get_state()
    push_checkpoint(folder, {key: state[key] for key in ("averaged", "aligner", "history", "binding", "taught") if key in state})
    for listener in listeners:
        listener.end(summary)
    # Last, because it marks the fold as finished.
    files = {"binding": training.binding, "files": describe_files(folder)}
    write_text(folder.summary_file, json.dumps({**summary, **files}, indent=1))
    folder.previous_checkpoint.unlink(missing_ok=True)
    return summary


def make_batches(run: Run, data: FoldData, first_step: int, device: torch.device) -> Iterator[Batch]:
    """The batches of a training from `first_step` on, by tensor operations or by the loader, as `train.augment_on` says."""
    where = run.config.train.augment_on
    if where == "device" or (where == "auto" and device.type != "cpu"):
        return cut_batches(run, data, first_step, device)
    return load_batches(TrainingFaces(run, data), first_step, device)


class FoldTraining:
    """A fold in training: its state, its progress, and who is told."""

    def __init__(self, run: Run, data: FoldData, device: torch.device, listeners: Sequence[Listener]) -> None:
        self.run, self.data, self.listeners, train = run, data, listeners, run.config.train
        self.binding = describe_fold(run.config, run.faces, run.folds, data.fold)
        self.taught = digest(data.points_store.tobytes().hex()) if train.teacher else ""
        self.state = new_state(run.config, data.mean_crop, train.seed + data.seed, choose_speed(run, device), device)
        steps = data.count_steps(train.batch)
        self.progress = Progress(
            steps, train.epochs, train.batch, lambda step: train.lr_factor * learning_rate(train, step, train.epochs * steps)
        )
        px_per_crop = torch.from_numpy(data.px_per_crop).float()[:, None]
        boxes_px = torch.from_numpy(data.boxes_px[:, None, 2:]).float()
        self.weight, self.px_per_crop, self.boxes_px = (one.to(device) for one in (data.face_weight, px_per_crop, boxes_px))

    def resume(self) -> None:
        """Load the fold's last checkpoint or, if it has none, the weights to start from. Raises UserError for a checkpoint of
        another fold, config, split or data set."""
        run, state, folder = self.run, self.state, self.run.fold(self.data.fold)
        stored = load_latest_checkpoint(folder)
        if stored:
            difference = find_difference(stored.get("binding"), self.binding)
            if stored.get("taught", self.taught) != self.taught:
                difference = "other points of its teachers"
            try:
                if not difference:
                    state.load_state_dict(stored)
                    self.progress.load_state_dict(stored)
                    if run.config.model.aligner:
                        self._set_aligner(stored["aligner"])
                    return
            except (KeyError, TypeError, ValueError, RuntimeError):
                difference = "another program or model"
            raise UserError(
                f"{folder.checkpoint}: was made with {difference}; put this fold's own checkpoint back, or remove {folder.path} "
                "and run make train again."
            )
        if run.config.model.weights:
            load_pretrained(state.model.backbone, run.places.weights(run.config.model.weights))
        elif run.config.train.start:
            load_fold(state.model, find_source_fold(run, "train.start", self.data.fold))
        state.averaged.load_state_dict(state.model.state_dict())
        if run.config.model.aligner:
            self._set_aligner(read_aligner(find_source_fold(run, "model.aligner", self.data.fold), run.config))

    def _set_aligner(self, stored: dict) -> None:
        self.state.averaged.aligner = load_aligner(stored, self.run.faces.markup.count, self.state.device)

    def train(self, writer: CheckpointWriter) -> None:
        """Do the steps that are left."""
        progress, read, started = self.progress, time.monotonic(), time.monotonic()
        for batch in () if progress.done else make_batches(self.run, self.data, progress.steps, self.state.device):
            self._step(batch)
            now = time.monotonic()
            progress.add_seconds(now - started)
            is_long = progress.at_epoch_end and progress.times["epoch"] >= LONG_EPOCH
            if progress.at_epoch_end:
                self._end_epoch()
            is_due = writer.due
            if is_due or is_long or progress.done or now - read >= READ_EVERY:
                self._read()
                read = now
            if is_due:
                self._refuse_ruined_weights()
                writer.write(self.get_state)
            started = time.monotonic()
        self._refuse_ruined_weights()

    def _step(self, batch: Batch) -> None:
        state, config, step = self.state, self.run.config, self.progress.steps
        state.model.train()
        state.set_learning_rate(self.progress.rate(step))
        loss, points_crop = training_step(state, config, batch.crops, batch.points_crop, self.weight[batch.rows])
        update_average(state.averaged, state.model, config.train.ema, step)
        difference_crop = points_crop - batch.points_crop
        difference_px = difference_crop * self.px_per_crop[batch.rows]
        mse = (difference_px / self.boxes_px[batch.rows]).square().mean()
        self.progress.add_step(torch.stack([loss, difference_px.abs().mean(), mse, difference_crop.square().mean()]))

    def _end_epoch(self) -> None:
        train, epochs, started = self.run.config.train, self.progress.steps // self.progress.steps_per_epoch, time.monotonic()
        scores: dict[str, float] = {}
        points_px = None
        asked = epochs % train.validate_every == 0 and self.progress.can_validate(train.validate_share)
        if (asked or self.progress.done) and len(self.data.held_out_rows):
            self._read()
            self._refuse_ruined_weights()
            config, rows = simplify_prediction(self.run.config), self.data.held_out_rows
            model = prepare_model(self.state.averaged)
            points_px = predict_points(model, self.run.store, rows, config, self.run.faces.markup).points_px
            scores = score_held_out(points_px, self.run, self.data)
        self.progress.end_epoch(scores, points_px, time.monotonic() - started)

    def _read(self) -> None:
        """Read the figures of the last steps and tell the listeners. Raises UserError for a loss that is not finite."""
        try:
            epochs, mae_px = self.progress.read(peak_memory_mb(self.state.device))
        except NotFiniteError as error:
            epoch, number = divmod(error.step, self.progress.steps_per_epoch)
            rows = plan_order(self.run, self.data, epoch)[number]
            names = ", ".join(self.data.pictures[row] for row in rows)
            problem = f"the loss is {error.loss} in epoch {epoch + 1}, in the batch of {names}"
            raise self._explain_divergence(problem) from None
        for listener in self.listeners:
            for row, points_px in epochs:
                listener.epoch(row, points_px)
            if mae_px is not None:
                listener.batch(self.progress.epochs_done, mae_px)

    def _refuse_ruined_weights(self) -> None:
        # The last step may have ruined the weights after its loss was computed.
        if not is_finite(self.state.averaged):
            raise self._explain_divergence(f"the weights are not finite after {self.progress.epochs_done:.2f} epochs")

    def _explain_divergence(self, what: str) -> DivergedError:
        folder = self.run.fold(self.data.fold)
        steps = self.progress.count_steps(load_latest_checkpoint(folder) or {})
        fix = 'resume at a lower rate with SET="train.lr_factor=0.3"'
        where = f"its checkpoint is of epoch {steps / self.progress.steps_per_epoch:.2f}"
        return DivergedError(f"{folder.path}: {what}; {where}: {fix}.")

    def get_state(self) -> dict:
        """All that resuming needs."""
        aligner = self.state.averaged.aligner
        return {
            **self.state.state_dict(),
            **self.progress.state_dict(),
            **({"aligner": aligner.state_dict()} if aligner else {}),
            "binding": self.binding,
            **({"taught": self.taught} if self.taught else {}),
        }

    def predict_held_out(self) -> dict:
        """Predict the held-out faces as the config sets, write these out-of-fold predictions, and return the fold's figures; of a
        net that learned all faces those of its training alone."""
        run, data, averaged, history = self.run, self.data, self.state.averaged, self.progress.history
        trained = {
            "epochs": len(history),
            "seconds": round(sum(row["seconds"] for row in history), 1),
            "parameters": count_parameters(averaged),
        }
        if not run.fold(data.fold).holds_out:
            return {"fold": data.fold, "learned_faces": len(data.training_rows), **trained}
        model, rows = prepare_model(averaged), data.held_out_rows
        prediction = predict_points(model, run.store, rows, run.config, run.faces.markup)
        run.fold(data.fold).write_oof(run.faces.take(rows), prediction)
        return {
            "fold": data.fold,
            "faces": len(rows),
            **score_held_out(prediction.points_px, run, data),
            "in_one_pass": {key: history[-1][key] for key in ("mae_px", "nme")},
            **trained,
        }


def simplify_prediction(config: Config) -> Config:
    """The config with the plainest prediction, which is enough to see how training goes."""
    return config.model_copy(update={"predict": config.predict.model_copy(update={"realign": 0, "flip": False, "shift": 0})})


def score_held_out(points_px: np.ndarray, run: Run, data: FoldData) -> dict[str, float]:
    """The figures of predictions (n, k, 2) for the fold's held-out faces; mse_crop in crop pixels squared, the unit that the
    course's losses are in."""
    faces = run.faces.take(data.held_out_rows)
    difference_crop = (points_px - faces.points_px) / data.px_per_crop[data.held_out_rows][:, None]
    return {**compute_scores(points_px, faces), "mse_crop": float(np.square(difference_crop).mean())}
