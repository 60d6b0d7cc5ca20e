"""`make train`: the folds of an experiment, trained from where they stand, with all that is shown meanwhile. `make distill`: a
net that learns from an ensemble."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from foldmark.cluster.choice import open_engine
from foldmark.commands.wandb_runs import fetch_source
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.files import lock_folder
from foldmark.core.metrics import bootstrap_interval, face_nme, format_scores
from foldmark.core.progress import Progress, no_progress
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
from foldmark.train.executors import Engine, Executor
from foldmark.train.fold_data import prepare_fold
from foldmark.train.state import check_names


@dataclass(frozen=True)
class FoldJob:
    """A fold to train, shown in its row of the table and in its W&B run of the group."""

    run: Run
    fold: int
    row: FoldRow
    group: Group


def train(session: Session, experiment: Experiment, folds: list[int] | None) -> None:
    """Train the asked folds (None: all) of an experiment, or of each member of a blend, and print the OOF figures; before them,
    what is missing of the runs whose models they take: with the config that such a run was begun with, if it was."""
    sources = {name: read_begun_config(session, name, config) for name, config in experiment.sources.items()}
    runs = {**sources, **experiment.members}
    for config in runs.values():
        check_names(config)
    if sources:
        say(f"{experiment.name} takes models of {', '.join(sources)}, so what is missing there is trained first.")
    with open_engine(session) as engine:
        for together in [list(runs.items())] if engine.side_by_side else [[run] for run in runs.items()]:
            MemberTraining(session, engine, experiment.data, folds).train(dict(together))


def read_begun_config(session: Session, name: str, config: Config) -> Config:
    """The config that a run was begun with; the given one for a run that was not. Raises UserError for a damaged file."""
    folder = RunFolder(session.places.run(name))
    return folder.read_config() if folder.config_file.exists() else config


class MemberTraining:
    """The members of a blend, or one experiment, trained together: one table of their folds and one queue. A member that takes
    models of another one is opened once that one has a finished fold, and each of its folds waits for the same fold there."""

    def __init__(self, session: Session, engine: Engine, data: Data, asked_folds: list[int] | None) -> None:
        self.session, self.engine, self.data, self.asked_folds = session, engine, data, asked_folds
        self.table, self.several = TrainingTable(), False
        self.executor: Executor[FoldJob] = engine.executor(lambda job: train_one(engine, job))
        self.runs: dict[str, Run] = {}
        self.later: dict[str, Config] = {}  # members that are not opened yet
        self.waiting: list[FoldJob] = []

    def train(self, members: Mapping[str, Config]) -> None:
        self.later, self.several = dict(members), len(members) > 1
        self._begin(show_progress)
        with self.table:
            for job, summary in self.executor.results():
                say(
                    f"{self._name(job.run, ' ')}fold {job.fold} done in {summary['seconds'] / 60:.1f} min: out-of-fold "
                    f"{format_scores(summary)}"
                )
                self._begin(no_progress)  # the table is being shown
        for name, config in self.later.items():  # whose sources cannot come
            open_run(self.session.places, name, config, self.data)
        for run in self.runs.values():
            write_fit(run.folder.ensemble_file, [run.folder], np.ones(1), run.faces)
            oof, name = read_oof(run.folder, run.faces), self._name(run, ": ")
            mean_face = score_mean_face(run, run.select_folds(self.asked_folds))
            say(f"{name}all out-of-fold faces ({len(oof)}): {format_scores(oof.scores())}")
            if run.config.folds.split == "300w":
                say(f"{name}300-W, the standard split: {describe_parts(oof)}")
            say(f"{name}for comparison, the mean training face placed in each box: {format_scores(mean_face)}")
        following = None
        if self.data.kind.test_list is not None:
            following = "make csv submit (the competition file); make dashboard (all curves)"
        folders = ", ".join(str(run.folder.path) for run in self.runs.values())
        say_made(f"{folders} (metrics.csv, faces.png and checkpoints in each fold)", following)

    def _begin(self, progress: Progress) -> None:
        """Open the members that can begin, and submit the folds that need not wait for another one."""
        for name, config in list(self.later.items()):
            sources = config.sources
            if any(source in self.later or not self._has_finished(source) for source in sources.values()):
                continue
            for key, source in sources.items():
                fetch_source(self.session.places, key, source)
            self.runs[name] = open_run(self.session.places, name, config, self.data, progress)
            del self.later[name]
            self._add_folds(self.runs[name])
        for job in list(self.waiting):
            if all(self._has_finished(source, job.fold) for source in job.run.config.sources.values()):
                self.waiting.remove(job)
                self.executor.submit(job)

    def _has_finished(self, name: str, fold: int | None = None) -> bool:
        """Whether a run has finished this fold, or any; also one that is not trained here, so need not be waited for."""
        if name not in self.runs:
            return True
        folder = self.runs[name].folder
        return bool(folder.finished) if fold is None else folder.fold(fold).finished

    def _add_folds(self, run: Run) -> None:
        """Check a run, say what will be trained, and add its folds to the table."""
        folds = run.select_folds(self.asked_folds)
        if run.name == DEFAULT_CONFIG and self.engine.device.type == "cuda":
            say("this machine has a GPU: CONFIG=gpu trains larger crops for longer (not measured on a GPU yet).")
        if run.store.damaged:
            listed = ", ".join(run.faces.pictures[row] for row in run.store.damaged)
            say(f"left out, because data.skip_damaged is set: {listed}")
        for fold in folds:
            prepare_fold(run, fold)  # a batch that is too large is refused before it is measured
        check_finished_folds(run)
        speed = self.engine.choose_speed(run)
        say(
            f"{run.folder.path}: {len(run.faces)} faces, folds {' '.join(map(str, folds))} on {self.engine.describe()}, "
            f"{speed.label} (steps/s measured: {', '.join(f'{way} {rate:g}' for way, rate in speed.steps_per_second.items())})"
        )
        tags = list_tags(run.config, synthetic=self.data.synthetic)
        group = Group(run.name, self.session.wandb, self.session.notes, tags)
        names = [f"{run.name} {fold}" if self.several else str(fold) for fold in folds]
        for fold, row in zip(folds, self.table.add(names, run.config.train.epochs), strict=True):
            summary = run.fold(fold).summary
            if summary:
                row.end(summary)
                say(f"{self._name(run, ' ')}fold {fold} is finished: {format_scores(summary)}")
            else:
                self.waiting.append(FoldJob(run, fold, row, group))

    def _name(self, run: Run, then: str) -> str:
        """What a line begins with: the run, where there are several."""
        return f"{run.folder.path}{then}" if self.several else ""


def train_one(engine: Engine, job: FoldJob) -> dict:
    """Train one fold, with its sheet of faces; its summary."""
    run, fold = job.run, job.fold
    data, folder = prepare_fold(run, fold), run.fold(fold).path
    settings = {**run.config.model_dump(mode="json"), "fold": fold}
    with (
        lock_folder(folder, "another process trains this fold"),
        job.group.start(f"{run.name}-fold{fold}", settings, folder) as tracker,
    ):
        return engine.train_fold(run, data, [job.row, FaceSheet(run, fold), WandbListener(tracker, run, fold)])


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
    teachers = _train_changed(session, experiment, f"{name}-teachers{fold}", {"folds": {**split, "leave_out": fold}}, None)
    learner: dict = {"folds": split, "train": {"teacher": [teachers.name]}}
    distilled = _train_changed(session, experiment, f"{name}-distilled{fold}", learner, [fold])
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


def _train_changed(session: Session, experiment: Experiment, name: str, changes: dict[str, dict], folds: list[int] | None) -> Run:
    """The experiment with changed settings under another name, trained."""
    tree = experiment.config.model_dump()
    for section, keys in changes.items():
        tree[section] |= keys
    changed = replace(experiment, name=name, members={name: Config.model_validate(tree)})
    train(session, changed, folds)
    return open_run(session.places, name, changed.config, experiment.data, show_progress)


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
