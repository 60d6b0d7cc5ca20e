"""The course's parts 1 and 2 on IMM: which settings each part compares, and training them on the main job's machinery.

Everything of a part stands below runs/<part>/: a run folder for each setting and seed, figures/, results.csv and
index.html.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch

from foldmark.commands.pipeline import mean_face_scores, train_one
from foldmark.core.config import load_config
from foldmark.core.errors import UserError
from foldmark.core.files import write_text
from foldmark.core.metrics import face_nme
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import load_model
from foldmark.models.consistency import shift_consistency
from foldmark.models.device import pick_device
from foldmark.models.net import count_parameters
from foldmark.report import wandb as wandb_view
from foldmark.runs.experiment import find_data_or_synthesise
from foldmark.runs.run import RUNS, Run, open_run, read_oof, read_summary
from foldmark.show.charts import Curve
from foldmark.show.terminal import say, say_made
from foldmark.show.training_table import TrainingTable
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
        return Curve(self.setting.label, [pandas.read_csv(run.fold_folder(0) / "metrics.csv") for run in self.runs])

    def figures(self, key: str) -> np.ndarray:
        return np.array([summary[key] for summary in self.summaries])

    def net(self, index: int, device: torch.device) -> torch.nn.Module:
        run = self.runs[index]
        return load_model(run.fold_folder(0) / "last.pt", run.config, run.faces.markup.count, device)


def run_part(name: str, data_root: Path, overrides: list[str], device_name: str, wandb_mode: str, notes: str = "") -> None:
    """Train what is not yet trained of a part, then write its results and its page, and print the figures."""
    from foldmark.report.part import write_part_page

    if name not in PARTS:
        raise UserError(f"{name}: no such part; there are {', '.join(PARTS)}.")
    part, device = PARTS[name], pick_device(device_name)
    for setting in part.compared:
        check_names(load_config(setting.config, [*setting.changes, *overrides]))
    data = find_data_or_synthesise(data_root, "imm")
    folder = RUNS / (f"{name}-synthetic" if data.synthetic else name)

    def trained(setting: Setting) -> Trained:
        return train_setting(folder, setting, data, overrides, device, wandb_mode, part.name, notes)

    compared = [trained(setting) for setting in part.compared]
    varied = {what: [trained(setting) for setting in settings] for what, settings in part.varied.items()}
    rows = results(compared, device)
    write_text(folder / "results.csv", pandas.DataFrame(rows).to_csv(index=False))
    page = write_part_page(folder, part, data, compared, varied, rows, device)
    for row in rows:
        say("  ".join(f"{key} {value}" if key != "setting" else str(value) for key, value in row.items()))
    following = {"part1": "make part2", "part2": "make train (part 3: iBUG), or make extra"}.get(name)
    say_made(f"{folder}/results.csv and figures/. Page to open: {page}", following)


def train_setting(
    folder: Path,
    setting: Setting,
    data: Data,
    overrides: list[str],
    device: torch.device,
    wandb_mode: str,
    job_type: str,
    notes: str,
) -> Trained:
    configs = [load_config(setting.config, [*setting.changes, f"train.seed={seed}", *overrides]) for seed in range(setting.seeds)]
    label, tags = setting.label.replace(" ", "-"), (*wandb_view.tags(configs[0], synthetic=data.synthetic), setting.label)
    group = wandb_view.Group(folder.name, wandb_mode, notes, tags, job_type)
    runs = [open_run(f"{folder.name}/{label}-seed{seed}", config, data) for seed, config in enumerate(configs)]
    summaries = [read_summary(run.fold_folder(0)) for run in runs]
    if all(summaries):
        return Trained(setting, runs, summaries)
    names = [f"{setting.label}, seed {seed}" for seed in range(setting.seeds)]
    with TrainingTable(names, configs[0].train.epochs, what="setting") as table:
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
        rows, points_px, *_ = read_oof(run.fold_folder(0))
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
