"""`make tune`: a search over config keys. `make compare`: all trained experiments in one table, and their best blend.
`foldmark model`: what a variant consists of."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas
import torch

from foldmark.cluster.choice import open_engine
from foldmark.commands.train import FoldJob, train_one
from foldmark.commands.wandb_runs import fetch_source
from foldmark.core.config import change_config
from foldmark.core.config_file import load_config
from foldmark.core.errors import DivergedError, UserError
from foldmark.core.files import lock_folder, write_text
from foldmark.core.metrics import RESAMPLES
from foldmark.core.progress import Progress, no_progress
from foldmark.data.sets import Data, pick_set
from foldmark.models.device import pick_device
from foldmark.models.net import build_model, list_layers
from foldmark.report.compare import NARROW, SHOWN, BestBlend, Variant, compare_variants, find_best_blend, find_variants
from foldmark.report.search import (
    OOF_NME,
    SearchResults,
    TrialCurve,
    describe_comparison,
    describe_trials,
    format_value,
    summarise_trial,
    write_search,
)
from foldmark.report.wandb import Group, list_tags
from foldmark.runs.experiment import Session
from foldmark.runs.run import Run, open_run
from foldmark.show.terminal import is_watched, make_command, say, say_made, say_table, show_progress
from foldmark.show.tracker import Tracker
from foldmark.show.training_table import FoldRow, TrainingTable
from foldmark.train.executors import Engine, Executor
from foldmark.train.fold_data import prepare_fold
from foldmark.train.state import check_names
from foldmark.tune.folder import Search, drop_crops
from foldmark.tune.judge import compare_runs, judge
from foldmark.tune.listener import Pruned, TrialListener
from foldmark.tune.space import validate_each_epoch
from foldmark.tune.study import BASE, Study, Trial


@dataclass(frozen=True)
class TrialJob:
    """A trial to train, from where it stands."""

    trial: Trial
    run: Run


def tune(session: Session, search: Search, variables: dict[str, str]) -> None:
    """Train the trials that are left of the budget, compare the best with the base on the final folds, and write table, page and
    config. Resumes where it was interrupted. variables: as the user has set them for make.

    Raises UserError for a space that does not fit, before anything is trained.
    """
    folder, file = search.folder, search.file
    for config in search.space.list_ends():
        check_names(config)
    for key, source in search.base.config.sources.items():
        fetch_source(session.places, key, source)
    folder.refuse_changes(file, search.space.base)
    with lock_folder(folder.path, "another process searches here"), open_engine(session) as engine:
        searching = Searching(session, engine, search)
        best = searching.search()
        results = searching.judge(best)
    best_config = session.places.relative(folder.best_config)
    command = make_command("train", {"CONFIG": best_config, "DATA_ROOT": variables["DATA_ROOT"]})
    write_search(results, command)
    table = describe_trials(results)
    say_table(table, narrow=[name for name in table[0] if name in (*best.values, "trial", OOF_NME, "outcome")])
    if comparison := describe_comparison(results):
        say_table(comparison)
    for sentence in results.warning:
        say(sentence)
    say_made(f"{folder.report_file}, {folder.trials_table.name} and {folder.best_config.name}, the best as a config", command)


class Searching:
    """A search in this process: its study, the runs of the trials that train or may be needed again, and one queue."""

    def __init__(self, session: Session, engine: Engine, search: Search) -> None:
        self.session, self.engine, self.plan, self.folder = session, engine, search, search.folder
        self.runs: dict[int, Run] = {}
        base = self._open(Trial(BASE, search.space.base_values), show_progress)
        base.select_folds([*search.file.folds, *search.file.final_folds])
        largest = max(search.space.list_ends(), key=lambda config: config.train.batch)
        for fold in search.file.folds:
            prepare_fold(replace(base, config=largest), fold)  # a batch that is too large is refused
        self.folder.begin(search.file, search.space.base)
        self.epochs = base.config.train.epochs
        self.study = Study(self.folder.study_file, search.space, search.file.seed, self.epochs, side_by_side=engine.side_by_side)
        tags = list_tags(search.space.base, synthetic=search.base.data.synthetic)
        self.group = Group(self.folder.name, session.wandb, session.notes, tags, "tune")
        self.table = TrainingTable(what="trial")
        self.clock = time.monotonic()

    def search(self) -> Trial:
        """Train trials until the budget is spent; the best one."""
        waiting, executor = self.study.resume(), self.engine.executor(self._train)
        say(
            f"{self.folder.path}: fold {' '.join(map(str, self.plan.file.folds))} judges, trials on {self.engine.describe()}, "
            f"{len(self.study.trials) - len(waiting)} done before"
        )
        running = self._fill(executor, waiting, 0, show_progress)
        with self.table:
            for job, outcome in executor.results():
                self._end(job, outcome)
                running = self._fill(executor, waiting, running - 1, no_progress)
        self._clean([])
        best = self.study.best
        assert best is not None  # the base is finished, or an error was raised
        return best

    def judge(self, best: Trial) -> SearchResults:
        """Train the best trial and the base on the final folds, and compare them there and where the best was chosen."""
        searched = final = None
        if best.number != BASE:
            base_run, best_run = (self.runs.get(one.number) or self._open(one) for one in (self.study.trials[BASE], best))
            executor: Executor[FoldJob] = self.engine.executor(lambda job: train_one(self.engine, job))
            for run in (base_run, best_run):
                self.engine.choose_speed(run)
                for fold in self.plan.file.final_folds:
                    if not run.fold(fold).finished:
                        executor.submit(FoldJob(run, fold, self._add_row(run, fold), replace(self.group, job="final")))
            with self.table:
                for _ in executor.results():
                    pass
            searched, final = (
                compare_runs(base_run, best_run, folds) for folds in (self.plan.file.folds, self.plan.file.final_folds)
            )
        return SearchResults(self.plan, self.study.trials, best, searched, final, self.study.compute_importances())

    def _fill(self, executor: Executor[TrialJob], waiting: list[Trial], running: int, progress: Progress) -> int:
        """Submit trials, those that a killed process had begun first, until as many run as there is room for; how many run."""
        while running < self.engine.room() and (waiting or self._has_budget()):
            trial = waiting.pop(0) if waiting else self.study.ask()
            try:
                self.plan.space.make_config(trial.values)
            except UserError as error:  # values that do not fit each other
                self._tell(trial, {"outcome": "failed", "reason": str(error)})
                continue
            self.runs[trial.number] = self._open(trial, progress)
            executor.submit(TrialJob(trial, self.runs[trial.number]))
            running += 1
        return running

    def _has_budget(self) -> bool:
        file, spent = self.plan.file, self.study.seconds + time.monotonic() - self.clock
        in_number = file.trials is None or len(self.study.trials) < file.trials
        return in_number and (file.minutes is None or spent < 60 * file.minutes)

    def _open(self, trial: Trial, progress: Progress = no_progress) -> Run:
        """The run of a trial, with the split of the base."""
        config = validate_each_epoch(self.plan.space.make_config(trial.values))
        split = self.folder.trial(BASE).split_file
        if split.exists():
            config = change_config(config, {"folds.file": split}, str(split))
        name = f"{self.folder.name}/{self.folder.trial(trial.number).name}"
        return open_run(self.session.places, name, config, self.plan.base.data, progress)

    def _train(self, job: TrialJob) -> dict:
        """Train a trial; how it ended."""
        trial, run, began = job.trial, job.run, time.monotonic()
        settings = {**run.config.model_dump(mode="json"), "trial": trial.number, "searched": trial.values}
        name, path = f"{self.folder.name}-trial{trial.number}", run.folder.path
        with (
            lock_folder(path, "another process trains this trial"),
            self.group.start(name, settings, path) as tracker,
        ):
            outcome = self._train_folds(job, tracker)
            summarise_trial(tracker, trial, outcome)
            tracker.finish(failed=outcome["outcome"] == "failed")
        return {**outcome, "seconds": time.monotonic() - began}

    def _train_folds(self, job: TrialJob, tracker: Tracker) -> dict:
        """One fold after the other, so that a trial that is pruned in the first one costs no more."""
        number, run, folds = job.trial.number, job.run, self.plan.file.folds
        epochs = run.config.train.epochs
        try:
            self.engine.choose_speed(run)
            for index, fold in enumerate(folds):
                before, folder = index * epochs, run.fold(fold)
                curve = TrialCurve(tracker, folder, before)
                if folder.finished:
                    curve.begin(epochs)
                    continue
                pruner = TrialListener(lambda step, nme: self.study.report(number, step, nme), before, epochs * len(folds))
                row = self._add_row(run, fold)
                try:
                    with lock_folder(folder.path, "another process trains this fold"):
                        self.engine.train_fold(run, prepare_fold(run, fold), [row, curve, pruner])
                finally:
                    self.table.rows.remove(row)
            return {"outcome": "finished", "nme": judge(run, folds)}
        except Pruned:
            return {"outcome": "pruned"}
        except DivergedError as error:
            return {"outcome": "failed", "reason": str(error).split(";")[0]}
        except torch.OutOfMemoryError as error:
            return {"outcome": "failed", "reason": " ".join(str(error).split())[:200]}

    def _end(self, job: TrialJob, outcome: dict) -> None:
        self._tell(job.trial, outcome)
        now = time.monotonic()
        self.study.add_seconds(now - self.clock)
        self.clock = now
        self._clean([trial.number for trial in self.study.trials if trial.outcome == "running"])

    def _tell(self, trial: Trial, outcome: dict) -> None:
        """Note how a trial ended, and say so. Raises UserError for the base, without which there is nothing to compare with."""
        self.study.tell(trial.number, **outcome)
        ended = self.study.trials[trial.number]
        values = ", ".join(f"{name} {format_value(value)}" for name, value in trial.values.items())
        last = f" after epoch {max(ended.curve)}, NME {ended.curve[max(ended.curve)]:.2f} %" if ended.curve else ""
        figure = f": {OOF_NME.removesuffix(' %')} {ended.nme:.2f} %" if ended.nme is not None else last
        why = f" ({ended.reason})" if ended.reason else ""
        say(f"trial {trial.number} {'(base) ' * (trial.number == BASE)}{ended.outcome}{figure}  [{values}]{why}")
        if trial.number == BASE and ended.outcome == "failed":
            raise UserError(
                f"{self.folder.path}: the base config cannot be trained{why}; mend it, and search under another NAME."
            )

    def _clean(self, running: list[int]) -> None:
        """Remove the checkpoints, and the crops that were cut for them, of trials that ended and are neither base nor best."""
        best, began = self.study.best, {trial.number: trial.began for trial in self.study.trials}
        kept = {BASE, *running, *([best.number] if best else [])}
        used = [self.runs[number] for number in kept if number in self.runs]
        for number in set(began) - kept:
            self.folder.drop_checkpoints(number)
            run = self.runs.pop(number, None)
            if run:
                drop_crops(run, used, began[number])

    def _add_row(self, run: Run, fold: int) -> FoldRow:
        name = f"{run.name.removeprefix('trial')} fold {fold}"
        row = FoldRow(name, run.config.train.epochs, f"trial {name}", is_watched())
        self.table.rows.append(row)
        return row


def compare(session: Session, data: Data, variables: dict[str, str]) -> None:
    """Print the table of all experiments on this data and of their best blend, write it to runs/compare.csv, and print the
    command that makes the blend's file. variables: as the user has set them for make."""
    device, path = pick_device(session.device), session.places.compare_table
    variants = find_variants(session.places, data)
    best_blend = find_best_blend(variants)
    rows = compare_variants(variants, best_blend, device)
    write_text(path, pandas.DataFrame(rows).to_csv(index=False))
    say_table([{title: row[title] for title in SHOWN} for row in rows], narrow=NARROW)
    say_made(f"{path}, with every column and the NME of each region.")
    say(
        f"Intervals: 95 %, photos resampled {RESAMPLES} times; to the best: the difference of NME to {variants[0].name} on the "
        "same faces; moves: how far points move on a face that shifts by 1 to 8 px, in percent of the eye distance; "
        "failure rate: faces with an NME over 8 %."
    )
    for variant in variants:
        for source in variant.run.config.sources.values():
            say(f"{variant.name} takes models of {source}; the minutes of {source} are not included.")
    _say_next(variants, best_blend, variables)


def _say_next(variants: list[Variant], best: BestBlend | None, variables: dict[str, str]) -> None:
    data_root = {"DATA_ROOT": variables["DATA_ROOT"]}
    if best is None:
        say("best blend: needs two experiments with all folds of the same split, each named as its config.")
        another = make_command("train CONFIG=...", data_root)
        say(f"Next: {another} (another variant), or {make_command('csv submit', variables)}")
        return
    weights = [f"{member.name} {weight:.2f}" for member, weight in zip(best.members, best.blend.weights, strict=True)]
    say(f"best blend: {', '.join(weights)}")
    names = [str(member.config_name) for member in best.members]
    if len(names) == 1:
        say(f"The others get no weight beside it. Next: {make_command('csv', {'CONFIG': names[0], **data_root})}")
        return
    config = f"'blend: [{', '.join(names)}]'"
    say(f"Next, to make its file: echo {config} > configs/blend.yaml && {make_command('csv', {'CONFIG': 'blend', **data_root})}")


def show_model(session: Session, model: str, overrides: Sequence[str]) -> None:
    """Print a variant's layers, parameters and operations."""
    config = load_config(model, session.places.configs, overrides)
    points = len(config.data.points) if config.data.points else pick_set(config.data.set).markup.count
    print(list_layers(build_model(config, torch.zeros(points, 2), seed=0), config))
