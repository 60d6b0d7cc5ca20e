"""`make train`: the folds of an experiment, trained from where they stand, with all that is shown meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foldmark.cluster.choice import open_engine
from foldmark.commands.wandb_runs import fetch_source
from foldmark.core.config import Config
from foldmark.core.files import lock_folder
from foldmark.core.metrics import format_scores
from foldmark.core.progress import Progress, no_progress
from foldmark.data.sets import Data
from foldmark.ensemble.fit import write_fit
from foldmark.ensemble.oof import read_oof
from foldmark.ensemble.standard import describe_parts
from foldmark.report.face_sheet import FaceSheet
from foldmark.report.results import score_mean_face
from foldmark.report.wandb import Group, WandbListener, list_tags
from foldmark.runs.experiment import DEFAULT_CONFIG, Experiment, Session
from foldmark.runs.fold_folder import ALL_FACES, ALL_NAME
from foldmark.runs.run import Run, open_run
from foldmark.runs.run_folder import RunFolder
from foldmark.show.terminal import make_command, say, say_made, show_progress
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


def train(session: Session, experiment: Experiment, folds: list[int] | None, variables: dict[str, str]) -> None:
    """Train the asked folds (None: all) of an experiment, or of each member of a blend, and print the OOF figures; before them,
    what is missing of the runs whose models they take: with the config that such a run was begun with, if it was.
    variables: as the user has set them for make."""
    sources = {name: read_begun_config(session, name, config) for name, config in experiment.sources.items()}
    runs = {**sources, **experiment.members}
    for config in runs.values():
        check_names(config)
    if sources:
        say(f"{experiment.name} takes models of {', '.join(sources)}, so what is missing there is trained first.")
    with open_engine(session) as engine:
        for together in [list(runs.items())] if engine.side_by_side else [[run] for run in runs.items()]:
            MemberTraining(session, engine, experiment.data, folds).train(dict(together))
    following = None
    if experiment.data.kind.test_list is not None:
        following = f"{make_command('csv submit', variables)} (the competition file); make dashboard (all curves)"
    folders = ", ".join(str(session.places.run(name)) for name in runs)
    say_made(f"{folders} (metrics.csv, faces.png and checkpoints in each fold)", following)


def read_begun_config(session: Session, name: str, config: Config) -> Config:
    """The config that a run was begun with; the given one for a run that was not. Raises UserError for a damaged file."""
    folder = RunFolder(session.places.run(name))
    return folder.read_config() if folder.config_file.exists() else config


class MemberTraining:
    """The members of a blend, or one experiment, trained together: one table of their folds and one queue. A member that takes
    models of another one is opened once that one has a finished fold, and each of its folds waits for the same fold there.

    asked_folds: None for all folds; [ALL_FACES] for a net that learns all faces and holds out none."""

    def __init__(self, session: Session, engine: Engine, data: Data, asked_folds: list[int] | None) -> None:
        self.session, self.engine, self.data, self.asked_folds = session, engine, data, asked_folds
        self.table, self.several = TrainingTable(), False
        self.executor: Executor[FoldJob] = engine.executor(lambda job: train_one(engine, job))
        self.runs: dict[str, Run] = {}
        self.later: dict[str, Config] = {}  # members that are not opened yet
        self.waiting: list[FoldJob] = []

    def train(self, members: Mapping[str, Config]) -> None:
        """Train the members and print their figures."""
        self.train_only(members)
        for run in self.runs.values():
            self._tell(run)

    def train_only(self, members: Mapping[str, Config]) -> None:
        """Train the members."""
        self.later, self.several = dict(members), len(members) > 1
        self._begin(show_progress)
        with self.table:
            for job, summary in self.executor.results():
                name, minutes = self._name(job.run, " "), summary["seconds"] / 60
                say(f"{name}{name_fold(job.fold)} done in {minutes:.1f} min: {describe_figures(summary)}")
                self._begin(no_progress)  # the table is being shown
        for name, config in self.later.items():  # whose sources cannot come
            open_run(self.session.places, name, config, self.data)

    def _tell(self, run: Run) -> None:
        write_fit(run.folder.ensemble_file, [run.folder], np.ones(1), run.faces)
        oof, name = read_oof(run.folder, run.faces), self._name(run, ": ")
        mean_face = score_mean_face(run, run.select_folds(self.asked_folds))
        say(f"{name}all out-of-fold faces ({len(oof)}): {format_scores(oof.scores())}")
        if run.config.folds.split == "300w":
            say(f"{name}300-W, the standard split: {describe_parts(oof)}")
        say(f"{name}for comparison, the mean training face placed in each box: {format_scores(mean_face)}")

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
        folds = [ALL_FACES] if self.asked_folds == [ALL_FACES] else run.select_folds(self.asked_folds)
        if run.name == DEFAULT_CONFIG and self.engine.device.type == "cuda":
            say("this machine has a GPU: CONFIG=gpu trains larger crops for longer (not measured on a GPU yet).")
        if run.store.damaged:
            listed = ", ".join(run.faces.pictures[row] for row in run.store.damaged)
            say(f"left out, because data.skip_damaged is set: {listed}")
        for fold in folds:
            if not run.fold(fold).finished:
                prepare_fold(run, fold)  # a batch that is too large is refused before it is measured
        check_finished_folds(run)
        speed = self.engine.choose_speed(run)
        say(
            f"{run.folder.path}: {len(run.faces)} faces, {name_folds(folds)} on {self.engine.describe()}, "
            f"{speed.label} (steps/s measured: {', '.join(f'{way} {rate:g}' for way, rate in speed.steps_per_second.items())})"
        )
        tags = list_tags(run.config, synthetic=self.data.synthetic)
        group = Group(run.name, self.session.wandb, self.session.notes, tags)
        names = [f"{run.name} {label_fold(fold)}" if self.several else label_fold(fold) for fold in folds]
        for fold, row in zip(folds, self.table.add(names, run.config.train.epochs), strict=True):
            summary = run.fold(fold).summary
            if summary:
                row.end(summary)
                say(f"{self._name(run, ' ')}{name_fold(fold)} is finished: {describe_figures(summary)}")
            else:
                self.waiting.append(FoldJob(run, fold, row, group))

    def _name(self, run: Run, then: str) -> str:
        """What a line begins with: the run, where there are several."""
        return f"{run.folder.path}{then}" if self.several else ""


def label_fold(fold: int) -> str:
    return ALL_NAME if fold == ALL_FACES else str(fold)


def name_fold(fold: int) -> str:
    return "the net on all faces" if fold == ALL_FACES else f"fold {fold}"


def name_folds(folds: list[int]) -> str:
    return "none held out," if folds == [ALL_FACES] else f"folds {' '.join(map(str, folds))}"


def describe_figures(summary: dict) -> str:
    """The figures of a finished fold, in words."""
    if "learned_faces" in summary:
        return f"it learned all {summary['learned_faces']} faces, so no figure can be measured on them"
    return f"out-of-fold {format_scores(summary)}"


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
