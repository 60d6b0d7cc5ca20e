"""The course's parts 1 and 2 on IMM: the settings that each compares, and their scores.

A part keeps everything in runs/<part>/: a run folder for each setting and seed, figures/, results.csv, index.html and
sections.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from foldmark.core.metrics import METRICS
from foldmark.data.sets import Data
from foldmark.ensemble.oof import read_oof
from foldmark.models.net import PointRegressor
from foldmark.models.trained import load_model
from foldmark.report.compare import keep_consistency
from foldmark.report.results import score_mean_face
from foldmark.runs.run import Run
from foldmark.show.charts import Curve


@dataclass(frozen=True)
class Setting:
    """A config, the changes to it, and how often it is trained: once for each seed, from 0."""

    label: str
    config: str
    changes: tuple[str, ...] = ()
    seeds: int = 3


@dataclass(frozen=True)
class Part:
    """The settings that a part compares, and hyperparameters that it varies in the first of them. target: of make."""

    name: str
    target: str
    title: str
    next_step: str | None
    compared: tuple[Setting, ...]
    varied: dict[str, tuple[Setting, ...]]


def _vary(config: str, key: str, values: list[str], label: str) -> tuple[Setting, ...]:
    return tuple(Setting(f"{label} {value}", config, (f"{key}={value}",), seeds=1) for value in values)


PART1 = Part(
    name="part1",
    target="part1",
    title="Part 1: the nose tip by a small CNN on 80x60 pictures",
    next_step="make part2",
    compared=(Setting("report", "part1-report"), Setting("ours", "part1")),
    varied={
        "learning rate": _vary("part1-report", "train.lr", ["1e-2", "1e-4"], "learning rate"),
        "kernel": _vary("part1-report", "model.kernel", ["5", "7"], "kernel"),
    },
)
PART2 = Part(
    name="part2",
    target="part2",
    title="Part 2: all 58 points by a CNN on 240x180 pictures",
    next_step="make train (part 3: iBUG), or make extra",
    compared=(Setting("report", "part2-report"), Setting("ours", "part2")),
    varied={},
)
EXTRA = Part(
    name="part2-extra",
    target="extra",
    title="Part 2 with ResNet18, plain and anti-aliased",
    next_step=None,
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
PARTS = {part.target: part for part in (PART1, PART2, EXTRA)}


@dataclass(frozen=True)
class Trained:
    """A setting with its trained runs, one for each seed. Fold 0 of each holds out the course's last 8 people."""

    setting: Setting
    runs: list[Run]

    @property
    def curve(self) -> Curve:
        return Curve(self.setting.label, [run.fold(0).read_metrics() for run in self.runs])

    @cached_property
    def seeds(self) -> list[dict[str, float]]:
        """The scores of each seed on the held-out faces, with what its summary holds besides."""
        return [{**run.fold(0).require_summary(), **read_oof(run.folder, run.faces).scores()} for run in self.runs]

    def values(self, key: str) -> np.ndarray:
        """A figure of each seed."""
        return np.array([seed[key] for seed in self.seeds])

    def load_model(self, index: int, device: torch.device) -> PointRegressor:
        run = self.runs[index]
        return load_model(run.fold(0).checkpoint, run.config, run.faces.markup.count, device)


@dataclass(frozen=True)
class PartResults:
    """A trained part. varied: by the hyperparameter's name."""

    part: Part
    folder: Path
    data: Data
    compared: list[Trained]
    varied: dict[str, list[Trained]]

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def best(self) -> Trained:
        """The compared setting of the lowest relative MSE."""
        return min(self.compared, key=lambda trained: trained.values("mse").mean())


def describe_settings(results: PartResults, device: torch.device) -> list[dict[str, str]]:
    """The part's table: for each setting the mean and standard deviation over its seeds, and first the mean face, which a model
    has to beat."""
    mean_face = score_mean_face(results.compared[0].runs[0], [0])
    # The course's metrics come first.
    metrics = sorted(METRICS.items(), key=lambda item: item[1].shown != "parts")
    rows = [{"setting": "mean face", **{metric.title: metric.format(mean_face[key]) for key, metric in metrics}}]
    for trained in results.compared:
        moves = [keep_consistency(run, 0, device) for run in trained.runs]
        rows.append(
            {
                "setting": trained.setting.label,
                **{metric.title: _mean_and_spread(trained.values(key), metric.format) for key, metric in metrics},
                "MSE px² of the crop": _mean_and_spread(trained.values("mse_crop")),
                "moves %": _mean_and_spread(np.array(moves)),
                "parameters": f"{int(trained.values('parameters')[0]):,}",
                "seconds per seed": f"{trained.values('seconds').mean():.0f}",
            }
        )
    return [{title: row.get(title, "") for title in rows[-1]} for row in rows]


def _mean_and_spread(values: np.ndarray, write: Callable[[float], str] = "{:.2f}".format) -> str:
    return write(values.mean()) if len(values) == 1 else f"{write(values.mean())} ± {write(values.std(ddof=1))}"
