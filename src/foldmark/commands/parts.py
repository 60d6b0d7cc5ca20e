"""`make part1`, `part2` and `extra`: the course's parts, trained from where they stand, and their pages."""

from collections.abc import Sequence
from pathlib import Path

import pandas
import torch

from foldmark.commands.setup import open_data
from foldmark.commands.train import train_one
from foldmark.core.config_file import load_config
from foldmark.core.files import write_text
from foldmark.models.device import pick_device
from foldmark.report import wandb as wandb_view
from foldmark.report.part import PARTS, PartResults, Setting, Trained, describe_settings
from foldmark.report.part_page import write_part_page
from foldmark.runs.experiment import Session
from foldmark.runs.run import Run, open_run
from foldmark.show.terminal import say_made, say_table, show_progress
from foldmark.show.training_table import TrainingTable
from foldmark.train.checkpoints import check_finished_folds
from foldmark.train.state import check_names


def run_part(session: Session, command: str, data_root: Path, overrides: Sequence[str]) -> None:
    """Train what is not yet trained of a part, write its results and its page, and print the results. Raises UserError for
    overrides that do not fit its configs, before anything is made."""
    part = PARTS[command]
    for setting in part.compared:
        check_names(load_config(setting.config, session.places.configs, [*setting.changes, *overrides]))
    data = open_data(session.places, data_root, "imm")
    device = pick_device(session.device)
    folder = session.places.run(f"{part.name}-synthetic" if data.synthetic else part.name)

    def train(setting: Setting) -> Trained:
        changes = [*setting.changes, *overrides]
        configs = [
            load_config(setting.config, session.places.configs, [f"train.seed={seed}", *changes]) for seed in range(setting.seeds)
        ]
        label = setting.label.replace(" ", "-")
        runs = [
            open_run(session.places, f"{folder.name}/{label}-seed{seed}", config, data, show_progress)
            for seed, config in enumerate(configs)
        ]
        tags = (*wandb_view.list_tags(configs[0], synthetic=data.synthetic), setting.label)
        train_setting(setting, runs, device, wandb_view.Group(folder.name, session.wandb, session.notes, tags, part.name))
        return Trained(setting, runs)

    compared = [train(setting) for setting in part.compared]
    varied = {name: [train(setting) for setting in settings] for name, settings in part.varied.items()}
    results = PartResults(part, folder, data, compared, varied)
    table = describe_settings(results, device)
    write_text(folder / "results.csv", pandas.DataFrame(table).to_csv(index=False))
    page = write_part_page(results, table, device)
    say_table(table, narrow=list(table[0])[:4])
    say_made(f"{folder}/results.csv and figures/. Page to open: {page}", part.next_step)


def train_setting(setting: Setting, runs: list[Run], device: torch.device, group: wandb_view.Group) -> None:
    """Train the runs of a setting, one for each seed, from where they stand."""
    for run in runs:
        check_finished_folds(run)
    summaries = [run.fold(0).summary for run in runs]
    if all(summaries):
        return
    names = [f"{setting.label}, seed {seed}" for seed in range(setting.seeds)]
    with TrainingTable(names, runs[0].config.train.epochs, what="setting") as table:
        for run, row, summary in zip(runs, table.rows, summaries, strict=True):
            if summary:
                row.end(summary)
            else:
                train_one(run, 0, row, device, group)
