"""`make train`: the folds of an experiment, trained from where they stand, with all that is shown meanwhile. `make distill`: a
net that learns from an ensemble."""

import numpy as np
import torch

from foldmark.commands.wandb_runs import fetch_source
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.files import lock_folder
from foldmark.core.metrics import bootstrap_interval, face_nme, format_scores
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import average_folds
from foldmark.ensemble.fit import write_fit
from foldmark.ensemble.oof import read_oof
from foldmark.ensemble.standard import describe_parts
from foldmark.models.device import pick_device
from foldmark.models.inference import predict_points, prepare_model
from foldmark.models.trained import load_model
from foldmark.report.face_sheet import FaceSheet
from foldmark.report.results import score_mean_face
from foldmark.report.wandb import Group, WandbListener, list_tags
from foldmark.runs.experiment import DEFAULT_CONFIG, Experiment, Session
from foldmark.runs.run import Run, open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.terminal import say, say_made, say_table, show_progress
from foldmark.show.training_table import FoldRow, TrainingTable
from foldmark.train.checkpoints import check_finished_folds
from foldmark.train.executors import Executor, InOrder
from foldmark.train.fold_data import prepare_fold
from foldmark.train.loop import train_fold
from foldmark.train.speed import choose_speed
from foldmark.train.state import check_names


def train(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Train the asked folds (None: all) of an experiment, or of each member of a blend, and print the OOF figures; before them,
    what is missing of the runs whose models they take."""
    runs = {**experiment.sources, **experiment.members}
    for config in runs.values():
        check_names(config)
    if experiment.sources:
        say(f"{experiment.name} takes models of {', '.join(experiment.sources)}, so what is missing there is trained first.")
    for name, config in runs.items():
        for key, source in config.sources.items():
            fetch_source(session.places, key, source)
        train_run(session, open_run(session.places, name, config, experiment.data, show_progress), experiment.data, folds)


def train_run(session: Session, run: Run, data: Data, asked_folds: list[int] | None) -> None:
    device, folds = pick_device(session.device), run.select_folds(asked_folds)
    if run.name == DEFAULT_CONFIG and device.type == "cuda":
        say("this machine has a GPU: CONFIG=gpu trains larger crops for longer (not measured on a GPU yet).")
    if run.store.damaged:
        listed = ", ".join(run.faces.pictures[row] for row in run.store.damaged)
        say(f"left out, because data.skip_damaged is set: {listed}")
    for fold in folds:
        prepare_fold(run, fold)  # a batch that is too large is refused before it is measured
    check_finished_folds(run)
    speed = choose_speed(run, device)
    say(
        f"{run.folder.path}: {len(run.faces)} faces, folds {' '.join(map(str, folds))} on {device}, {speed.label} "
        f"(steps/s measured: {', '.join(f'{way} {rate:g}' for way, rate in speed.steps_per_second.items())})"
    )
    group = Group(run.name, session.wandb, session.notes, list_tags(run.config, synthetic=data.synthetic))
    with TrainingTable([str(fold) for fold in folds], run.config.train.epochs) as table:
        row_of = dict(zip(folds, table.rows, strict=True))
        executor: Executor[int] = InOrder(lambda fold: train_one(run, fold, row_of[fold], device, group))
        for fold in folds:
            summary = run.fold(fold).summary
            if summary:
                row_of[fold].end(summary)
                say(f"fold {fold} is finished: {format_scores(summary)}")
            else:
                executor.submit(fold)
        for fold, summary in executor.results():
            say(f"fold {fold} done in {summary['seconds'] / 60:.1f} min: out-of-fold {format_scores(summary)}")
    write_fit(run.folder.ensemble_file, [run.folder], np.ones(1), run.faces)
    oof = read_oof(run.folder, run.faces)
    say(f"all out-of-fold faces ({len(oof)}): {format_scores(oof.scores())}")
    if run.config.folds.split == "300w":
        say(f"300-W, the standard split: {describe_parts(oof)}")
    say(f"for comparison, the mean training face placed in each box: {format_scores(score_mean_face(run, folds))}")
    following = None if data.kind.test_list is None else "make csv submit (the competition file); make dashboard (all curves)"
    say_made(f"{run.folder.path} (metrics.csv, faces.png and checkpoints in each fold)", following)


def train_one(run: Run, fold: int, row: FoldRow, device: torch.device, group: Group) -> dict:
    """Train one fold, shown in its row of the table and in its W&B run, with its sheet of faces; its summary."""
    data, folder = prepare_fold(run, fold), run.fold(fold).path
    settings = {**run.config.model_dump(mode="json"), "fold": fold}
    with (
        lock_folder(folder, "another process trains this fold"),
        group.start(f"{run.name}-fold{fold}", settings, folder) as tracker,
    ):
        return train_fold(run, data, device, [row, FaceSheet(run, fold), WandbListener(tracker, run, fold)])


def distill(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Measure what one net gains that learns from an ensemble, on a fold that neither it nor its teachers have seen: the asked
    one, else the first that is finished. Resumes where it was interrupted.

    runs/<name>-teachers<f>: the experiment without fold f; its nets are the teachers, and the ensemble to compare with.
    runs/<name>-distilled<f>: the net of fold f, which learns the truth and the teachers' out-of-fold points of the other folds.
    """
    places, name = session.places, experiment.name
    finished = RunFolder(places.run(name)).require_finished()
    plain = open_run(places, name, experiment.config, experiment.data, show_progress)
    fold = folds[0] if folds else finished[0].number
    if fold not in [one.number for one in finished]:
        raise UserError(f"{plain.fold(fold).path}: is not finished; run make train with the same settings first.")
    split: dict = {"file": plain.folder.split_file}
    teachers = _open(session, experiment, f"{name}-teachers{fold}", {"folds": {**split, "leave_out": fold}})
    train_run(session, teachers, experiment.data, None)
    learner: dict = {"folds": split, "train": {"teacher": [teachers.name]}}
    distilled = _open(session, experiment, f"{name}-distilled{fold}", learner)
    train_run(session, distilled, experiment.data, [fold])
    rows = plain.held_out_rows(fold)
    faces = plain.faces.take(rows)
    points_px = {
        f"ensemble of {len(teachers.folder.finished)} teachers": _predict_ensemble(session, teachers, rows),
        "distilled net": _read_oof(distilled, fold, rows),
        "plain net": _read_oof(plain, fold, rows),
    }
    nme = {what: face_nme(points, faces) for what, points in points_px.items()}
    first = next(iter(nme.values()))
    say_table(
        [
            {"net": what, "NME %": f"{one.mean():.3f}", "to the ensemble": _compare(one - first, faces.groups)}
            for what, one in nme.items()
        ]
    )
    say(f"on the {len(rows)} faces of fold {fold}, which none of these nets has seen; in brackets the 95 % interval.")
    say_made(distilled.folder.path, f"make export NAME={distilled.name} FOLDS={fold}")


def _open(session: Session, experiment: Experiment, name: str, changes: dict[str, dict]) -> Run:
    tree = experiment.config.model_dump()
    for section, keys in changes.items():
        tree[section] |= keys
    return open_run(session.places, name, Config.model_validate(tree), experiment.data, show_progress)


def _read_oof(run: Run, fold: int, rows: np.ndarray) -> np.ndarray:
    found, prediction = run.fold(fold).read_oof(run.faces)
    return prediction.points_px[np.argsort(found)[np.searchsorted(np.sort(found), rows)]]


def _predict_ensemble(session: Session, run: Run, rows: np.ndarray) -> np.ndarray:
    device, parts = pick_device(session.device), []
    for fold in run.folder.finished:
        model = prepare_model(load_model(fold.checkpoint, run.config, run.faces.markup.count, device))
        parts.append(predict_points(model, run.store, rows, run.config, run.faces.markup))
    return average_folds(parts).points_px


def _compare(difference: np.ndarray, groups: list[str]) -> str:
    if not difference.any():
        return ""
    low, high = bootstrap_interval(difference, groups)
    return f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"
