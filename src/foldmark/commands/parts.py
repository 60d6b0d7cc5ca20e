"""The course's parts 1 and 2 on IMM: which settings each part compares, and training them on the main job's machinery.

Everything of a part stands below runs/<part>/: a run folder for each setting and seed, figures/, results.csv and
index.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas
import torch

from foldmark.commands.train import train_one
from foldmark.core.config_file import load_config
from foldmark.core.files import write_text
from foldmark.core.metrics import face_nme
from foldmark.data.sets import Data
from foldmark.models.consistency import shift_consistency
from foldmark.models.device import pick_device
from foldmark.models.net import count_parameters
from foldmark.models.trained import load_model
from foldmark.report import wandb as wandb_view
from foldmark.report.mean_face import mean_face_scores
from foldmark.runs.experiment import Session
from foldmark.runs.places import Places
from foldmark.runs.run import Run, open_run
from foldmark.show.charts import Curve
from foldmark.show.terminal import say, say_made, show_progress
from foldmark.show.training_table import TrainingTable
from foldmark.train.finished import check_finished_folds
from foldmark.train.state import check_names


@dataclass(frozen=True)
class Setting:
    """A config, what is changed in it, and how often it is trained: once a seed, from 0."""

    label: str
    config: str
    changes: tuple[str, ...] = ()
    seeds: int = 3


@dataclass(frozen=True)
class Part:
    """What a part trains: the settings it compares, and hyperparameters that it varies in its report's setting."""

    name: str
    title: str
    compared: tuple[Setting, ...]
    varied: dict[str, tuple[Setting, ...]]


def _varied(config: str, key: str, values: list[str], label: str) -> tuple[Setting, ...]:
    return tuple(Setting(f"{label} {value}", config, (f"{key}={value}",), seeds=1) for value in values)


PART1 = Part(
    name="part1",
    title="Part 1: the nose tip by a small CNN on 80x60 pictures",
    compared=(Setting("report", "part1-report"), Setting("ours", "part1")),
    varied={
        "learning rate": _varied("part1-report", "train.lr", ["1e-2", "1e-4"], "learning rate"),
        "kernel": _varied("part1-report", "model.kernel", ["5", "7"], "kernel"),
    },
)
PART2 = Part(
    name="part2",
    title="Part 2: all 58 points by a CNN on 240x180 pictures",
    compared=(Setting("report", "part2-report"), Setting("ours", "part2")),
    varied={},
)
EXTRA = Part(
    name="part2-extra",
    title="Part 2 with ResNet18, plain and anti-aliased",
    compared=tuple(
        Setting(label, "part2-resnet18", (f"model.blur={blur}",))
        for label, blur in (
            ("plain ResNet18", "none"),
            ("blur at every stride", "all"),
            ("blur only early", "early"),
            ("blur only late", "late"),
        )
    ),
    varied={},
)
PARTS = {part.name: part for part in (PART1, PART2, EXTRA)}


@dataclass(frozen=True)
class Trained:
    """A setting with its trained runs, one a seed; fold 0 of each holds out the course's last 8 people."""

    setting: Setting
    runs: list[Run]
    summaries: list[dict]

    @property
    def curve(self) -> Curve:
        return Curve(self.setting.label, [run.fold(0).read_metrics() for run in self.runs])

    def figures(self, key: str) -> np.ndarray:
        return np.array([summary[key] for summary in self.summaries])

    def net(self, index: int, device: torch.device) -> torch.nn.Module:
        run = self.runs[index]
        return load_model(run.fold(0).checkpoint, run.config, run.faces.markup.count, device)


def find_part(name: str, places: Places, overrides: Sequence[str]) -> Part:
    """The part of that name. Raises UserError for overrides that do not fit its configs, before anything is made."""
    part = PARTS[name]
    for setting in part.compared:
        check_names(load_config(setting.config, places.configs, [*setting.changes, *overrides]))
    return part


def run_part(part: Part, session: Session, data: Data, overrides: Sequence[str]) -> None:
    """Train what is not yet trained of a part, then write its results and its page, and print the figures."""
    from foldmark.report.part import write_part_page

    device = pick_device(session.device)
    folder = session.places.run(f"{part.name}-synthetic" if data.synthetic else part.name)

    def trained(setting: Setting) -> Trained:
        changes = [*setting.changes, *overrides]
        configs = [
            load_config(setting.config, session.places.configs, [f"train.seed={seed}", *changes]) for seed in range(setting.seeds)
        ]
        label = setting.label.replace(" ", "-")
        runs = [
            open_run(session.places, f"{folder.name}/{label}-seed{seed}", config, data, show_progress)
            for seed, config in enumerate(configs)
        ]
        tags = (*wandb_view.tags(configs[0], synthetic=data.synthetic), setting.label)
        group = wandb_view.Group(folder.name, session.wandb, session.notes, tags, part.name)
        return train_setting(setting, runs, device, group)

    compared = [trained(setting) for setting in part.compared]
    varied = {what: [trained(setting) for setting in settings] for what, settings in part.varied.items()}
    rows = results(compared, device)
    write_text(folder / "results.csv", pandas.DataFrame(rows).to_csv(index=False))
    page = write_part_page(folder, part, data, compared, varied, rows, device)
    for row in rows:
        say("  ".join(f"{key} {value}" if key != "setting" else str(value) for key, value in row.items()))
    following = {"part1": "make part2", "part2": "make train (part 3: iBUG), or make extra"}.get(part.name)
    say_made(f"{folder}/results.csv and figures/. Page to open: {page}", following)


def train_setting(setting: Setting, runs: list[Run], device: torch.device, group: wandb_view.Group) -> Trained:
    """Train the runs of a setting, one a seed, from where they stand."""
    for run in runs:
        check_finished_folds(run)
    summaries = [run.fold(0).summary for run in runs]
    if all(summaries):
        return Trained(setting, runs, summaries)
    names = [f"{setting.label}, seed {seed}" for seed in range(setting.seeds)]
    with TrainingTable(names, runs[0].config.train.epochs, what="setting") as table:
        for index, (run, row) in enumerate(zip(runs, table.rows, strict=True)):
            if summaries[index]:
                row.end(summaries[index])
                continue
            summaries[index] = train_one(run, 0, row, device, group)
    return Trained(setting, runs, summaries)


def results(compared: list[Trained], device: torch.device) -> list[dict[str, str]]:
    """The table of a part: for each setting the mean and spread over its seeds, and the mean face as the row to beat."""
    mean_face = mean_face_scores(compared[0].runs[0], [0])
    rows = [{"setting": "mean face", "MSE (relative)": f"{mean_face['mse']:.5f}", "NME %": f"{mean_face['nme']:.2f}"}]
    for trained in compared:
        rows.append(
            {
                "setting": trained.setting.label,
                "MSE (relative)": _spread(trained.figures("mse"), 5),
                "NME %": _spread(trained.figures("nme"), 2),
                "median face's NME %": _spread(median_nme(trained), 2),
                "MSE (px squared, as the net sees)": _spread(trained.figures("mse_crop"), 2),
                "moves when shifted, % of eyes": _spread(consistency(trained, device), 2),
                "parameters": f"{count_parameters(trained.net(0, device)):,}",
                "seconds a seed": f"{trained.figures('seconds').mean():.0f}",
            }
        )
    return [{key: row.get(key, "") for key in rows[-1]} for row in rows]


def median_nme(trained: Trained) -> np.ndarray:
    """The NME of each seed's middle held-out face: with so few people, one that is missed altogether decides the mean."""
    medians = []
    for run in trained.runs:
        rows, points_px, *_ = run.fold(0).read_oof(run.faces)
        medians.append(np.median(face_nme(points_px, run.faces.take(rows))))
    return np.array(medians)


def consistency(trained: Trained, device: torch.device) -> np.ndarray:
    """Shift consistency of each seed's net on its held-out faces, in percent of the outer-eye distance."""
    nets = [trained.net(index, device) for index in range(len(trained.runs))]
    return np.array(
        [shift_consistency(net, run, run.held_out_rows(0)).mean() for net, run in zip(nets, trained.runs, strict=True)]
    )


def _spread(values: np.ndarray, digits: int) -> str:
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} +- {values.std(ddof=1):.{digits}f}"
