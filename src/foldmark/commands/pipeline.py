"""The main job step by step, each step with what it shows: what `foldmark train`, `csv` and `submit` do."""

from pathlib import Path

import numpy as np
import torch

from foldmark.commands.submission_checks import upload_csv
from foldmark.core.config import Config
from foldmark.core.files import lock_folder, write_text
from foldmark.core.metrics import headline, mean_face_px, scores
from foldmark.data.folds import read_split
from foldmark.data.sets import Data
from foldmark.ensemble.calibration import calibrate, faces_to_look_at, reliability
from foldmark.ensemble.ensemble import ensemble_points, oof_scores, require_finished
from foldmark.ensemble.fit import FILE as ENSEMBLE_FILE
from foldmark.ensemble.fit import fit_ensemble
from foldmark.ensemble.oof import Blend, BlendedOof, blend_oof
from foldmark.models.device import pick_device
from foldmark.report import wandb as wandb_view
from foldmark.report.face_sheet import FaceSheet
from foldmark.runs.run import RUNS, Run, open_run, read_summary, stored_config, wanted_folds
from foldmark.show.charts import draw_reliability
from foldmark.show.terminal import say, say_made, show_progress
from foldmark.show.training_table import FoldRow, TrainingTable
from foldmark.submission.format import FORMATS, record_path
from foldmark.submission.ledger import note_submission, read_ledger
from foldmark.submission.rebuild import members_of
from foldmark.submission.record import Provenance, experiment_record, read_provenance, write_provenance
from foldmark.train.executors import InOrder
from foldmark.train.fold_data import prepare_fold
from foldmark.train.loop import train_fold
from foldmark.train.speed import choose_speed
from foldmark.train.state import check_names

SUBMISSIONS = Path("submissions")


def train(
    name: str, config: Config, data: Data, asked_folds: list[int] | None, device_name: str, wandb_mode: str, notes: str = ""
) -> None:
    """Train the asked folds (None: all) of an experiment and print the out-of-fold (OOF) figures."""
    check_names(config)
    device = pick_device(device_name)
    run = open_run(name, config, data, show_progress)
    folds = wanted_folds(run, asked_folds)
    if run.store.damaged:
        listed = ", ".join(run.faces.pictures[row] for row in run.store.damaged)
        say(f"left out, because data.skip_damaged is set: {listed}")
    speed = choose_speed(run, device)
    say(
        f"{run.folder}: {len(run.faces)} faces, folds {' '.join(map(str, folds))} on {device}, {speed.label} "
        f"(steps/s measured: {', '.join(f'{way} {rate:g}' for way, rate in speed.steps_per_second.items())})"
    )
    group = wandb_view.Group(name, wandb_mode, notes, wandb_view.tags(config, synthetic=data.synthetic))
    with TrainingTable([str(fold) for fold in folds], config.train.epochs) as table:
        row_of = dict(zip(folds, table.rows, strict=True))
        executor = InOrder(lambda fold: train_one(run, fold, row_of[fold], device, group))
        for fold in folds:
            summary = read_summary(run.fold_folder(fold))
            if summary:
                row_of[fold].end(summary)
                say(f"fold {fold} is finished: {headline(summary)}")
            else:
                executor.submit(fold)
        for fold, summary in executor.results():
            say(f"fold {fold} done in {summary['seconds'] / 60:.1f} min: out-of-fold {headline(summary)}")
    fit_ensemble(run.folder / ENSEMBLE_FILE, [run.folder], np.ones(1), run.faces)
    _, overall = oof_scores(run.folder, run.faces)
    say(f"all out-of-fold faces ({overall['faces']}): {headline(overall)}")
    say(f"for comparison, the mean training face laid into each box: {headline(mean_face_scores(run, folds))}")
    following = None if data.kind.test_list is None else "make csv submit (the competition file); make dashboard (all curves)"
    say_made(f"{run.folder} (metrics.csv, faces.png and checkpoints in each fold)", following)


def train_one(run: Run, fold: int, row: FoldRow, device: torch.device, group: wandb_view.Group) -> dict:
    """Train one fold, shown in its row of the table and in its W&B run, with its sheet of faces; its summary."""
    data, folder = prepare_fold(run, fold), run.fold_folder(fold)
    settings = {**run.config.model_dump(mode="json"), "fold": fold}
    with (
        lock_folder(folder, "another process trains this fold"),
        group.start(f"{run.folder.name}-fold{fold}", settings, folder) as tracker,
    ):
        return train_fold(run, data, device, [row, FaceSheet(run, fold), wandb_view.WandbListener(tracker, run, fold)])


def mean_face_scores(run: Run, folds: list[int]) -> dict[str, float]:
    """What the boxes alone give on the held-out faces of these folds: the row that a net has to beat."""
    rows = [run.held_out_rows(fold) for fold in folds]
    points_px = [
        mean_face_px(run.faces.take(run.training_rows(fold)), run.faces.take(held_out))
        for fold, held_out in zip(folds, rows, strict=True)
    ]
    return scores(np.concatenate(points_px), run.faces.take(np.concatenate(rows)))


def make_csv(
    name: str, members: list[str], data: Data, overrides: list[str], device_name: str, wandb_mode: str, notes: str = ""
) -> Path:
    """Write and check submissions/<name>.csv from the finished folds of these experiments, blended if there are several, with
    its record of provenance and its row in the ledger, and print the OOF figures."""
    folders = [RUNS / member for member in members]
    folds = [require_finished(folder) for folder in folders]
    configs = [stored_config(folder, overrides) for folder in folders]
    device = pick_device(device_name)
    # A ledger that cannot be read should be told before anything is predicted.
    read_ledger()
    oof = blend_oof(folders, configs, data.train)
    weights = oof.blend.weights.tolist()
    # What weighs nothing is no part of the file.
    records = [experiment_record(*one) for one in zip(folders, configs, folds, weights, strict=True) if one[-1]]
    with show_progress("predicting the test list", sum(len(record.folds) for record in records)) as done:
        points_px, spread_px = ensemble_points(members_of(records), data.test, device, done)
    path = SUBMISSIONS / f"{name}.csv"
    FORMATS[data.set].write(path, points_px, data.test, configs[0].crop)
    overall = {"faces": len(oof.rows), **scores(oof.blend.oof_px, data.train.take(oof.rows))}
    record = write_provenance(path, records, overall, data, str(device))
    note_submission(path, record)
    for folder in folders:
        _print_oof(folder, data)
    if len(folders) > 1:
        _print_blend(members, oof.blend)
    joined = ", mirror twins joined" if any(config.predict.twins for config in configs) else ""
    say(f"what the CSV is made of, out of fold ({overall['faces']} faces{joined}): {headline(overall)}")
    say_made(f"{path}, checked: {len(data.test)} faces, {points_px.size} rows; from what says {record_path(path).name}")
    drawn = _write_uncertainty(path, oof, spread_px, data)
    fit_ensemble(RUNS / name / ENSEMBLE_FILE, folders, oof.blend.weights, data.train)
    used = [member for member, weight in zip(members, weights, strict=True) if weight]
    _track_ensemble(name, used, record, oof, data, drawn, wandb_mode, notes)
    say(f"Next: make submit (uploads it), or make verify FILE={path} (rebuilds it)")
    return path


def _track_ensemble(
    name: str, members: list[str], record: Provenance, oof: BlendedOof, data: Data, reliability: Path, mode: str, notes: str
) -> None:
    """The ensemble's W&B run: its OOF predictions face by face, the nets that it is made from, and the file that it made."""
    experiments = dict(zip(members, record.experiments, strict=True))
    settings = {
        member: {"weight": experiment.weight, "folds": [fold.fold for fold in experiment.folds]}
        for member, experiment in experiments.items()
    }
    config, folder = record.experiments[0].config, RUNS / name / "ensemble"
    group = wandb_view.Group(name, mode, notes, wandb_view.tags(config, synthetic=data.synthetic), "ensemble")
    with group.start(f"{name}-ensemble", settings, folder) as tracker:
        if not tracker.running:
            return
        first = open_run(members[0], config, data)
        wandb_view.show_oof(tracker, first, oof.rows, oof.blend.oof_px, reliability)
        nets = [(member, fold) for member, experiment in experiments.items() for fold in experiment.folds]
        wandb_view.summarise(tracker, oof.blend.oof_px, data.train.take(oof.rows), folds=len(nets))
        for member, fold in nets:
            label, figures = wandb_view.model_name(RUNS / member, fold.fold), fold.oof.model_dump()
            wandb_view.log_model(tracker, label, fold.checkpoint, figures, used=True)
        wandb_view.log_submission(tracker, name, SUBMISSIONS / record.csv, record)


def _write_uncertainty(csv: Path, oof: BlendedOof, spread_px: np.ndarray, data: Data) -> Path:
    """Write which test faces to look at first, and how reliable that is, beside the competition file; the latter's picture."""
    held_out = data.train.take(oof.rows)
    std_px = calibrate(oof.spread_px, oof.blend.oof_px, held_out).std_px(spread_px, data.test)
    listed, drawn = (csv.with_name(f"{csv.stem}-{ending}") for ending in ("look-first.csv", "reliability.png"))
    write_text(listed, faces_to_look_at(std_px, data.test).to_csv(index=False))
    draw_reliability(drawn, reliability(oof.spread_px, oof.blend.oof_px, held_out, oof.folds))
    say_made(f"{listed} (test faces, the most uncertain first) and {drawn.name} (how far to trust that)")
    return drawn


def _print_oof(folder: Path, data: Data) -> None:
    summaries, overall = oof_scores(folder, data.train)
    for summary in summaries:
        say(f"{folder} fold {summary['fold']}: out-of-fold {headline(summary)}")
    expected = read_split(folder / "split.csv", data.train).max() + 1
    if len(summaries) < expected:
        say(f"only {len(summaries)} of {expected} folds are finished; the others are not in this ensemble.")
    say(f"{folder}: all out-of-fold faces ({overall['faces']}): {headline(overall)}")


def _print_blend(members: list[str], blend: Blend) -> None:
    weights = ", ".join(f"{member} {weight:.2f}" for member, weight in zip(members, blend.weights, strict=True))
    chosen = "fitted out of fold" if blend.fitted else "the plain mean, because fitted ones did not help"
    if not blend.weights.all():
        chosen += "; what weighs nothing is no part of the file"
    say(
        f"weights: {weights} ({chosen}); out-of-fold NME with fitted ones, nested, {blend.nme_nested:.3f} %, "
        f"with equal ones {blend.nme_mean:.3f} %"
    )


def submit(
    name: str,
    members: list[str],
    data: Data,
    overrides: list[str],
    device_name: str,
    wandb_mode: str,
    competition: str | None,
    notes: str = "",
) -> None:
    """Check the CSV, made first if it is not there, and upload it if that is asked for and can be done."""
    path = SUBMISSIONS / f"{name}.csv"
    if not path.exists():
        make_csv(name, members, data, overrides, device_name, wandb_mode, notes)
    # Before the upload, because a damaged record should be told while it can still be mended.
    record = read_provenance(path) if record_path(path).exists() else None
    uploaded = upload_csv(path, data, stored_config(RUNS / members[0]).crop, competition, f"foldmark {name}")
    if record:
        _track_submission(name, record, uploaded, competition, data, wandb_mode, notes)
    if uploaded:
        say(f"Next, once it is scored: make score FILE={path} LB=<score>")


def _track_submission(
    name: str, record: Provenance, uploaded: bool, competition: str | None, data: Data, mode: str, notes: str
) -> None:
    folder = RUNS / name / "submit"
    tags = wandb_view.tags(record.experiments[0].config, synthetic=data.synthetic)
    group = wandb_view.Group(name, mode, notes, tags, "submit")
    with group.start(f"{name}-submit", {"competition": competition}, folder) as tracker:
        tracker.summary({"uploaded": uploaded, "oof_nme": record.oof.nme, "oof_mae_px": record.oof.mae_px})
        wandb_view.log_submission(tracker, name, SUBMISSIONS / record.csv, record)
