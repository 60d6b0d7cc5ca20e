"""The course's parts 1 and 2 on IMM: the settings that each compares, their scores, and the page with all figures that the course
asks to show.

A part keeps everything in runs/<part>/: a run folder for each setting and seed, figures/, results.csv, index.html and
sections.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from foldmark.core import geometry
from foldmark.core.metrics import METRICS, face_mse
from foldmark.data.crops import warp
from foldmark.data.decode import read_grey
from foldmark.data.imm import view_of
from foldmark.data.sets import Data
from foldmark.ensemble.oof import read_oof
from foldmark.models.net import PointRegressor
from foldmark.models.trained import load_model
from foldmark.report.compare import keep_consistency
from foldmark.report.reasons import explain_faces
from foldmark.report.results import score_mean_face
from foldmark.report.training import show_augmentation, show_filters, show_layers, show_samples
from foldmark.runs.run import Run
from foldmark.show.charts import Curve, Panel, draw_curves
from foldmark.show.overlay import draw_points, save_png
from foldmark.show.page import Picture, Section, write_page

SHOWN_FACES = 4
PICTURE_WIDTH = 480


@dataclass(frozen=True)
class Setting:
    """A config, the changes to it, and how often it is trained: once for each seed, from 0."""

    label: str
    config: str
    changes: tuple[str, ...] = ()
    seeds: int = 3


@dataclass(frozen=True)
class Part:
    """The settings that a part compares, and hyperparameters that it varies in the first of them. target: of make.
    following: the targets that people run next, with a note."""

    name: str
    target: str
    title: str
    following: dict[str, str]
    compared: tuple[Setting, ...]
    varied: dict[str, tuple[Setting, ...]]


def _vary(config: str, key: str, values: list[str], label: str) -> tuple[Setting, ...]:
    return tuple(Setting(f"{label} {value}", config, (f"{key}={value}",), seeds=1) for value in values)


PART1 = Part(
    name="part1",
    target="part1",
    title="Part 1: the nose tip by a small CNN on 80x60 pictures",
    following={"part2": ""},
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
    following={"train": " (part 3: iBUG)", "extra": ""},
    compared=(Setting("report", "part2-report"), Setting("ours", "part2")),
    varied={},
)
EXTRA = Part(
    name="part2-extra",
    target="extra",
    title="Part 2 with ResNet18, plain and anti-aliased",
    following={},
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


def write_part_page(results: PartResults, table: list[dict[str, str]], device: torch.device) -> Path:
    """Draw all figures of a part into its figures/, write index.html and sections.json beside it, and return the page's path."""
    best, run = results.best, results.best.runs[0]
    sections = [
        Section("Results", _summarise(results), table=table),
        show_samples(run, 0, results.figures),
        show_augmentation(run, 0, results.figures),
        _curves(results),
        *(_show_varied(results, name, trained) for name, trained in results.varied.items()),
        *_best_and_worst(results),
        *(show_layers(trained.runs[0].config, run.faces.markup.count, trained.setting.label) for trained in results.compared),
        show_filters(best.load_model(0, device).state_dict(), results.figures, most=2),
    ]
    page = results.folder / "index.html"
    write_page(page, results.part.title, [section for section in sections if section])
    return page


def _summarise(results: PartResults) -> str:
    run, label = results.best.runs[0], results.best.setting.label
    note = "These are synthetic faces: the scores say nothing about real ones. " if results.data.synthetic else ""
    held_out = run.faces.take(run.held_out_rows(0))
    return (
        f"{note}Trained on {len(run.training_rows(0))} pictures, tested on {len(held_out)} pictures of "
        f"{len(set(held_out.groups))} people that are not among the training pictures. Scores are of the final model, mean and "
        f"standard deviation over the seeds; the lowest relative MSE is that of “{label}”. The relative MSE divides x by "
        "the picture's width and y by its height. moves: how far the points move on the face when the crop shifts by 1 to 8 "
        "pixels, in percent of the distance between the outer eye corners."
    )


def _curves(results: PartResults) -> Section:
    pictures = []
    if len(results.compared) > 2:
        path = results.figures / "curves-together.png"
        draw_curves(path, [_mse_panel(results, [trained.curve for trained in results.compared])], log=True)
        pictures.append(Picture(path, "Relative MSE of all settings: mean over the seeds, with their range."))
    path = results.figures / "curves-mse.png"
    draw_curves(path, [_mse_panel(results, [trained.curve]) for trained in results.compared], log=True)
    pictures.append(Picture(path, "Relative MSE, training (dashed) and held out (solid): mean over the seeds, with their range."))
    path = results.figures / "curves-mse_crop.png"
    crop = [Panel("MSE (px² of the crop)", [trained.curve], "mse_crop", "train_mse_crop") for trained in results.compared]
    draw_curves(path, crop, log=True)
    pictures.append(Picture(path, "The same in squared pixels of the crop, which is the model's input."))
    return Section("Learning curves", "Held-out curves are of the EMA weights, without test-time augmentation.", pictures)


def _mse_panel(results: PartResults, curves: list[Curve]) -> Panel:
    line = "mean face", score_mean_face(results.best.runs[0], [0])["mse"]
    return Panel(METRICS["mse"].axis, curves, "mse", "train_mse", line=line)


def _show_varied(results: PartResults, name: str, varied: list[Trained]) -> Section:
    report = results.compared[0]
    section, key = varied[0].setting.changes[0].split("=")[0].split(".")
    usual = getattr(getattr(report.runs[0].config, section), key)
    first = Curve(f"{name} {usual:g} ({report.setting.label})", report.curve.tables[:1])
    path = results.figures / f"varied-{name.replace(' ', '-')}.png"
    draw_curves(path, [_mse_panel(results, [curve]) for curve in (first, *(one.curve for one in varied))], log=True)
    write = METRICS["mse"].format
    scored = [f"{first.label}: {write(report.values('mse')[0])}"]
    scored += [f"{one.setting.label}: {write(one.values('mse').mean())}" for one in varied]
    text = f"Setting “{report.setting.label}”, seed 0. Held-out relative MSE of the final model: {', '.join(scored)}."
    return Section(f"Varied {name}", text, pictures=[Picture(path, f"Learning curves for each {name}, on one scale.")])


def _best_and_worst(results: PartResults) -> list[Section]:
    run = results.best.runs[0]
    oof = read_oof(run.folder, run.faces)
    mse = face_mse(oof.points_px, oof.faces)
    size = run.config.crop.size
    to_crop = geometry.centre_affine(run.store.size, size)
    crops = (warp(run.store[row], to_crop, size) for row in range(len(run.faces)))
    greys = np.array([(crop.mean(), crop.std()) for crop in crops])
    order = np.argsort(mse)
    sections = []
    for kind, chosen in (("best", order[:SHOWN_FACES]), ("worst", order[::-1][:SHOWN_FACES])):
        # With all points, also where the run learned a few of them.
        reasons = explain_faces(results.data.train, greys, run.training_rows(0), oof.rows[chosen])
        grid = []
        for place, (index, reason) in enumerate(zip(chosen, reasons, strict=True), start=1):
            row = oof.rows[index]
            path = results.figures / f"{kind}-{place}.png"
            truth_px = run.faces.points_px[row]
            picture = read_grey(run.faces.path(row))
            save_png(path, draw_points(picture, truth_px, oof.points_px[index], markup=run.faces.markup, width=PICTURE_WIDTH))
            name = run.faces.pictures[row]
            grid.append(Picture(path, f"{name} ({view_of(name)}), relative MSE {mse[index]:.5f}: {reason}."))
        text = "Truth in blue, prediction in orange. The reasons are computed from points and light, not judged by eye."
        sections.append(Section(f"{kind.capitalize()} faces", text, grid=grid))
    return sections
