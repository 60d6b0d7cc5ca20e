"""`make part1`, `part2` and `extra`: the course's parts, trained from where they stand, and their pages."""

from collections.abc import Sequence
from pathlib import Path

import pandas

from foldmark.cluster.choice import open_engine
from foldmark.commands.setup import open_data
from foldmark.commands.train import FoldJob, train_one
from foldmark.core.config_file import load_config
from foldmark.core.files import write_text
from foldmark.report.part import PARTS, PartResults, Setting, Trained, describe_settings, write_part_page
from foldmark.report.wandb import Group, list_tags
from foldmark.runs.experiment import Session
from foldmark.runs.run import open_run
from foldmark.show.terminal import make_command, say_made, say_table, show_progress
from foldmark.show.training_table import TrainingTable
from foldmark.train.checkpoints import check_finished_folds
from foldmark.train.executors import Engine, Executor
from foldmark.train.state import check_names


def run_part(session: Session, command: str, data_root: Path, overrides: Sequence[str], variables: dict[str, str]) -> None:
    """Train what is not yet trained of a part, write its results and its page, and print the results. Raises UserError for
    overrides that do not fit its configs, before anything is made. variables: as the user has set them for make."""
    part = PARTS[command]
    for setting in part.compared:
        check_names(load_config(setting.config, session.places.configs, [*setting.changes, *overrides]))
    data = open_data(session.places, data_root, "imm")
    folder = session.places.run(f"{part.name}-synthetic" if data.synthetic else part.name)

    def open_setting(setting: Setting) -> Trained:
        changes = [*setting.changes, *overrides]
        configs = [
            load_config(setting.config, session.places.configs, [f"train.seed={seed}", *changes]) for seed in range(setting.seeds)
        ]
        label = setting.label.replace(" ", "-")
        return Trained(
            setting,
            [
                open_run(session.places, f"{folder.name}/{label}-seed{seed}", config, data, show_progress)
                for seed, config in enumerate(configs)
            ],
        )

    def group_of(trained: Trained) -> Group:
        tags = (*list_tags(trained.runs[0].config, synthetic=data.synthetic), trained.setting.label)
        return Group(folder.name, session.wandb, session.notes, tags, part.name)

    settings = [*part.compared, *(setting for settings in part.varied.values() for setting in settings)]
    done: list[Trained] = []
    with open_engine(session) as engine:
        for together in [settings] if engine.side_by_side else [[setting] for setting in settings]:
            opened = [open_setting(setting) for setting in together]
            train_settings(engine, [(trained, group_of(trained)) for trained in opened])
            done += opened
        device = engine.device
    trained_of = dict(zip(settings, done, strict=True))
    varied = {name: [trained_of[setting] for setting in settings] for name, settings in part.varied.items()}
    results = PartResults(part, folder, data, done[: len(part.compared)], varied)
    table = describe_settings(results, device)
    write_text(folder / "results.csv", pandas.DataFrame(table).to_csv(index=False))
    page = write_part_page(results, table, device)
    say_table(table, narrow=list(table[0])[:4])
    next_step = ", or ".join(make_command(target, variables) + note for target, note in part.following.items())
    say_made(f"{folder}/results.csv and figures/. Page to open: {page}", next_step)


def train_settings(engine: Engine, settings: list[tuple[Trained, Group]]) -> None:
    """Train the runs of settings, one for each seed, from where they stand."""
    table = TrainingTable(what="setting")
    executor: Executor[FoldJob] = engine.executor(lambda job: train_one(engine, job))
    for trained, group in settings:
        for run in trained.runs:
            check_finished_folds(run)
        summaries = [run.fold(0).summary for run in trained.runs]
        if all(summaries):
            continue
        names = [f"{trained.setting.label}, seed {seed}" for seed in range(trained.setting.seeds)]
        rows = table.add(names, trained.runs[0].config.train.epochs)
        for run, row, summary in zip(trained.runs, rows, summaries, strict=True):
            if summary:
                row.end(summary)
            else:
                engine.choose_speed(run)
                executor.submit(FoldJob(run, 0, row, group))
    if table.rows:
        with table:
            for _ in executor.results():
                pass
