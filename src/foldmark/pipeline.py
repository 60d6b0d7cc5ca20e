"""The main job step by step, each step with what it shows: what `foldmark train`, `csv` and `submit` do."""

from pathlib import Path

import numpy as np
import torch

from foldmark import geometry, tracking
from foldmark.config import Config
from foldmark.data import Data
from foldmark.device import pick_device
from foldmark.ensemble import ensemble_points, oof_scores, require_finished
from foldmark.folds import read_split
from foldmark.kaggle import upload_submission
from foldmark.ledger import note_submission, read_ledger
from foldmark.metrics import face_nme, mean_face_px, scores
from foldmark.pictures import draw_points, save_png, sheet
from foldmark.progress import FoldProgress, console, counting
from foldmark.provenance import experiment_record, write_provenance
from foldmark.run import RUNS, Run, open_run, read_oof, read_summary, stored_config, wanted_folds
from foldmark.submission import provenance_path, write_submission
from foldmark.train import fold_speed, train_fold

SUBMISSIONS = Path("submissions")
# What W&B is shown while a fold trains: so many held-out faces, about so many times.
SHOWN_FACES, PICTURE_SETS = 6, 5


def train(name: str, config: Config, data: Data, asked_folds: list[int] | None, device_name: str, wandb_mode: str) -> None:
    """Train the asked folds (None: all) of an experiment and print the out-of-fold (OOF) figures."""
    device = pick_device(device_name)
    with counting("cutting out faces", len(data.train)) as done:
        run = open_run(name, config, data, done)
    folds = wanted_folds(run, asked_folds)
    if run.store.damaged:
        listed = ", ".join(run.faces.pictures[row] for row in run.store.damaged)
        console.print(f"left out, because data.skip_damaged is set: {listed}")
    speed = fold_speed(run, device)
    console.print(
        f"{run.folder}: {len(run.faces)} faces, folds {' '.join(map(str, folds))} on {device}, "
        f"{'channels_last' if speed.channels_last else 'contiguous'} {'bf16' if speed.bf16 else 'float32'} "
        f"(steps/s measured: {', '.join(f'{way} {rate:g}' for way, rate in speed.steps_per_second.items())})"
    )
    for fold in folds:
        summary = read_summary(run.fold_folder(fold))
        if summary:
            console.print(f"fold {fold} is finished: {_figures(summary)}")
            continue
        summary = train_one(name, run, fold, folds, device, wandb_mode)
        console.print(f"fold {fold} done in {summary['seconds'] / 60:.1f} min: out-of-fold {_figures(summary)}")
    _, overall = oof_scores(run.folder, run.faces)
    console.print(f"all out-of-fold faces ({overall['faces']}): {_figures(overall)}")
    console.print(f"for comparison, the mean training face laid into each box: {_figures(mean_face_scores(run, folds))}")
    following = "" if data.set == "imm" else " Next: make submit csv"
    console.print(f"made: {run.folder} (metrics.csv, faces.png and checkpoints in each fold).{following}")


def train_one(
    name: str, run: Run, fold: int, folds: list[int], device: torch.device, wandb_mode: str, job_type: str = "train"
) -> dict:
    """Train one fold with its progress bar, its W&B run in the group `name` and its sheet of faces; return its summary."""
    folder = run.fold_folder(fold)
    held_out = run.held_out_rows(fold)
    settings = {**run.config.model_dump(mode="json"), "fold": fold}
    epochs, pictures_at = run.config.train.epochs, 0.0
    with (
        tracking.start(name, f"{run.folder.name}-fold{fold}", job_type, settings, folder, wandb_mode) as tracker,
        FoldProgress(fold, folds, epochs) as progress,
    ):

        def on_epoch(row: dict, points_px: np.ndarray | None) -> None:
            nonlocal pictures_at
            progress.epoch(row)
            tracker.log({key: value for key, value in row.items() if value is not None}, row["epoch"])
            if points_px is not None and row["epoch"] >= pictures_at:
                pictures_at = row["epoch"] + epochs / PICTURE_SETS
                shown = np.linspace(0, len(held_out) - 1, min(SHOWN_FACES, len(held_out))).astype(int)
                pictures = [(drawn_crop(run, held_out[i], points_px[i]), run.faces.pictures[held_out[i]]) for i in shown]
                tracker.pictures("held-out faces", pictures, row["epoch"])

        summary = train_fold(run, fold, device, on_epoch, progress.batch)
        tracker.summary({f"oof_{key}": summary[key] for key in ("mae_px", "nme", "mse")})
    rows, points_px = read_oof(folder)
    nme = face_nme(points_px, run.faces.take(rows))
    # From the best face to the worst, so that one look shows what the figure stands for.
    shown = np.argsort(nme)[np.linspace(0, len(rows) - 1, min(12, len(rows))).astype(int)]
    save_png(
        folder / "faces.png",
        sheet(
            [drawn_crop(run, rows[i], points_px[i]) for i in shown],
            columns=4,
            captions=[f"NME {nme[i]:.1f} %" for i in shown],
            legend=True,
        ),
    )
    return summary


def mean_face_scores(run: Run, folds: list[int]) -> dict[str, float]:
    """What the boxes alone give on the held-out faces of these folds: the row that a net has to beat."""
    rows = [run.held_out_rows(fold) for fold in folds]
    points_px = [
        mean_face_px(run.faces.take(run.training_rows(fold)), run.faces.take(held_out))
        for fold, held_out in zip(folds, rows, strict=True)
    ]
    return scores(np.concatenate(points_px), run.faces.take(np.concatenate(rows)))


def drawn_crop(run: Run, row: int, points_px: np.ndarray) -> np.ndarray:
    """A face's store crop, enlarged, with truth and prediction (k, 2) drawn in."""
    px_to_store = run.store.px_to_store[row]
    truth_store, points_store = (geometry.apply(px_to_store, points) for points in (run.faces.points_px[row], points_px))
    return draw_points(run.store[row], truth_store, points_store, markup=run.faces.markup, width=360)


def make_csv(name: str, data: Data, overrides: list[str], device_name: str, wandb_mode: str) -> Path:
    """Write and check submissions/<name>.csv from the run's finished folds, with its record of provenance and its row in
    the ledger, and print the OOF figures."""
    folder = RUNS / name
    folds = require_finished(folder)
    config = stored_config(folder, overrides)
    device = pick_device(device_name)
    # A ledger that cannot be read should be told before anything is predicted.
    read_ledger()
    summaries, overall = oof_scores(folder, data.train)
    with counting("predicting the test list", len(folds)) as done:
        points_px = ensemble_points(folder, config, data.test, device, done)
    path = SUBMISSIONS / f"{name}.csv"
    write_submission(path, points_px, data.test, config.crop)
    experiments = [experiment_record(folder, config, folds)]
    note_submission(path, write_provenance(path, experiments, overall, data, str(device)))
    for summary in summaries:
        console.print(f"fold {summary['fold']}: out-of-fold {_figures(summary)}")
    expected = read_split(folder / "split.csv", data.train).max() + 1
    if len(folds) < expected:
        console.print(f"only {len(folds)} of {expected} folds are finished; the others are not in this ensemble.")
    console.print(f"all out-of-fold faces ({overall['faces']}): {_figures(overall)}")
    console.print(
        f"made: {path}, checked: {len(data.test)} faces, {points_px.size} rows; from what says {provenance_path(path).name}"
    )
    with tracking.start(name, f"{name}-ensemble", "ensemble", {"folds": folds}, folder, wandb_mode) as tracker:
        tracker.summary({"oof_mae_px": overall["mae_px"], "oof_nme": overall["nme"], "folds": len(folds)})
    return path


def submit(name: str, data: Data, overrides: list[str], device_name: str, wandb_mode: str, competition: str | None) -> None:
    """Check the CSV, made first if it is not there, and upload it if that is asked for and can be done."""
    path = SUBMISSIONS / f"{name}.csv"
    if not path.exists():
        make_csv(name, data, overrides, device_name, wandb_mode)
    if upload_submission(path, data.test, competition=competition, message=f"foldmark {name}", drawn=data.drawn):
        console.print(f"Next, once it is scored: make score FILE={path} LB=<score>")


def _figures(figures: dict) -> str:
    return f"MAE {figures['mae_px']:.2f} px, NME {figures['nme']:.2f} %"
