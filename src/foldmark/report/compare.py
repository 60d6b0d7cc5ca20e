"""Compare the experiments that are there: one table of their out-of-fold (OOF) figures, and the best blend of them.

Trains nothing. Experiments need not share a split to stand beside each other, because each figure is of faces that its nets
never saw; to be blended they must.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas
import torch
from rich.box import SIMPLE
from rich.measure import Measurement
from rich.table import Table

from foldmark.core.config import CONFIG_FOLDER
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import write_text
from foldmark.core.metrics import TABLE_METRICS, face_nme, region_nme, scores
from foldmark.data.sets import Data
from foldmark.ensemble.ensemble import Oof, load_model, read_experiment_oof
from foldmark.ensemble.oof import Blend, blend_oof
from foldmark.models.consistency import shift_consistency
from foldmark.models.device import pick_device
from foldmark.models.net import count_parameters
from foldmark.runs.run import RUNS, Run, finished_folds, open_run, read_summary, stored_config
from foldmark.show.terminal import console, say, say_made

CONSISTENCY_FACES = 100  # of the first finished fold
RESAMPLES = 2000

BASELINE = "seed"  # the row to beat stands first

# What a wide terminal and the report show; runs/compare.csv has the regions as well.
METRIC_TITLES = [metric.title for metric in TABLE_METRICS.values()]
SHOWN = ["experiment", "folds", *METRIC_TITLES, "95 %", "to the best", "moves %", "minutes", "parameters"]
NARROW = ["experiment", "folds", *METRIC_TITLES, "95 %", "moves %"]


@dataclass(frozen=True)
class Variant:
    """An experiment with its OOF predictions, and the NME in percent of each of its faces (n,)."""

    name: str
    run: Run
    oof: Oof
    nme: np.ndarray

    @property
    def config_name(self) -> str | None:
        """The config in configs/ that it is named as, if it is; on synthetic faces its name says so in addition."""
        name = self.name.removesuffix("-synthetic")
        return name if (CONFIG_FOLDER / f"{name}.yaml").is_file() else None


@dataclass(frozen=True)
class BestBlend:
    """The experiments whose blend is best, perhaps only one, and that blend."""

    members: list[Variant]
    blend: Blend

    @property
    def name(self) -> str:
        return " + ".join(member.name for member in self.members)


def compare(data: Data, device_name: str) -> None:
    """Print the table of all experiments on this data and of their best blend, write it to runs/compare.csv, and print the
    command that makes the blend's file."""
    device = pick_device(device_name)
    variants = sorted(_variants(data), key=lambda variant: variant.nme.mean())
    if not variants:
        raise UserError(f"{RUNS}: no experiment with a finished fold on {data.folder}; run make train first.")
    best, blended = variants[0], _best_blend(variants, data.train)
    variants.sort(key=lambda variant: variant.config_name != BASELINE)
    rows = [_row(variant, best, device) for variant in variants]
    if blended and len(blended.members) > 1:
        rows.append(_blend_row(blended, best, rows))
    path = RUNS / "compare.csv"
    write_text(path, pandas.DataFrame(rows).to_csv(index=False))

    table = _table(rows, SHOWN)
    # A table that is wider than its terminal would be broken into pieces.
    if Measurement.get(console, console.options.update(max_width=10_000), table).maximum > console.width:
        table = _table(rows, NARROW)
    console.print(table, soft_wrap=False)
    say_made(f"{path}, with every column and the NME of each region.")
    say(
        f"Intervals: 95 %, photos resampled {RESAMPLES} times; to the best: the difference of NME to {best.name} on the same "
        "faces; moves: how far points walk on a face that shifts by 1 to 8 px, in percent of the eyes.",
    )
    for variant in variants:
        if start := variant.run.config.train.start:
            say(f"{variant.name} goes on from {start}, whose minutes come before its own.")
    if blended is None:
        say("best blend: needs two experiments with all folds of the same split, each named as its config.")
        say("Next: make train CONFIG=... (another variant), or make csv submit")
        return
    weights = [f"{member.name} {weight:.2f}" for member, weight in zip(blended.members, blended.blend.weights, strict=True)]
    say(f"best blend: {', '.join(weights)}")
    names = [member.config_name for member in blended.members]
    if len(names) == 1:
        say(f"Beside it the others weigh nothing. Next: make csv CONFIG={names[0]}")
        return
    config = f"'blend: [{', '.join(names)}]'"
    say(f"Next, to make its file: echo {config} > configs/best.yaml && make csv CONFIG=best")


def _table(rows: list[dict], titles: list[str]) -> Table:
    table = Table(box=SIMPLE)
    for title in titles:
        table.add_column(title, overflow="fold", justify="left" if title == "experiment" else "right")
    for row in rows:
        table.add_row(*(str(row[title]) for title in titles))
    return table


def _variants(data: Data) -> list[Variant]:
    variants = []
    for folder in sorted(path.parent for path in RUNS.rglob("config.yaml")):
        if not finished_folds(folder):
            continue
        name = folder.relative_to(RUNS).as_posix()
        try:
            config = stored_config(folder)
            # A run of another set, or of a few points of it, measures something else.
            if config.data.set != data.set or config.data.points:
                continue
            run = open_run(name, config, data)
            oof = read_experiment_oof(folder)
        except UserError as error:
            say(f"not compared: {error}")
            continue
        variants.append(Variant(name, run, oof, face_nme(oof.points_px, run.faces.take(oof.rows))))
    return variants


def _row(variant: Variant, best: Variant, device: torch.device) -> dict:
    run, oof = variant.run, variant.oof
    faces = run.faces.take(oof.rows)
    folds = finished_folds(run.folder)
    model = load_model(run.fold_folder(folds[0]) / "last.pt", run.config, run.faces.markup.count, device)
    figures = _figures(oof.points_px, variant.nme, faces)
    return {
        "experiment": variant.name,
        "folds": f"{len(folds)} of {run.folds.max() + 1}",
        "faces": len(oof.rows),
        **figures,
        "to the best": "" if variant is best else _to_the_best(oof.rows, variant.nme, best),
        "moves %": f"{kept_consistency(run, folds[0], model, device):.2f}",
        "minutes": f"{sum(read_summary(run.fold_folder(fold))['seconds'] for fold in folds) / 60:.0f}",
        "parameters": f"{count_parameters(model):,}",
        **_regions(oof.points_px, faces),
    }


def _blend_row(blended: BestBlend, best: Variant, rows: list[dict]) -> dict:
    """Its nested figures; the minutes and parameters are those of its members together. How it moves is not measured."""
    first = blended.members[0]
    faces = first.run.faces.take(first.oof.rows)
    parts = [row for row in rows if row["experiment"] in {member.name for member in blended.members}]
    oof_px = blended.blend.oof_px
    nme = face_nme(oof_px, faces)
    return {
        "experiment": blended.name,
        "folds": parts[0]["folds"],
        "faces": len(faces),
        **_figures(oof_px, nme, faces),
        "to the best": _to_the_best(first.oof.rows, nme, best),
        "moves %": "",
        "minutes": f"{sum(int(row['minutes']) for row in parts)}",
        "parameters": f"{sum(int(row['parameters'].replace(',', '')) for row in parts):,}",
        **_regions(oof_px, faces),
    }


def _figures(points_px: np.ndarray, nme: np.ndarray, faces: Faces) -> dict[str, str]:
    figures = scores(points_px, faces)
    low, high = resampled_interval(nme, faces.groups)
    shown = {metric.title: metric.format(figures[key]) for key, metric in TABLE_METRICS.items()}
    return {**shown, "95 %": f"{low:.2f} to {high:.2f}"}


def _regions(points_px: np.ndarray, faces: Faces) -> dict[str, str]:
    return {f"NME % {name}": f"{value:.2f}" for name, value in region_nme(points_px, faces).items()}


def _to_the_best(rows: np.ndarray, nme: np.ndarray, best: Variant) -> str:
    """The difference of NME to the best experiment on the faces that both have predicted, with its interval."""
    _, mine, others = np.intersect1d(rows, best.oof.rows, return_indices=True)
    if not len(mine):
        return "no face in common"
    difference = nme[mine] - best.nme[others]
    low, high = resampled_interval(difference, best.run.faces.take(best.oof.rows[others]).groups)
    return f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def resampled_interval(values: np.ndarray, groups: list[str], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of values (n,) by the bootstrap (Efron 1979), whole groups drawn together: a photo's faces
    are no independent witnesses."""
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    draws = _draws(len(sums), seed)
    low, high = np.percentile(draws @ sums / (draws @ counts), [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=2)
def _draws(groups: int, seed: int) -> np.ndarray:
    """How often each group is drawn (RESAMPLES, groups); kept, because a table asks for many intervals over the same groups."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)


def kept_consistency(run: Run, fold: int, model: torch.nn.Module, device: torch.device) -> float:
    """Shift consistency of a fold's net on some of its held-out faces, in percent of the eyes; kept in the fold's folder."""
    path = run.fold_folder(fold) / "consistency.json"
    if not path.is_file():
        held_out = run.held_out_rows(fold)
        rows = held_out[np.linspace(0, len(held_out) - 1, min(CONSISTENCY_FACES, len(held_out))).astype(int)]
        moved = shift_consistency(model, run, rows)
        write_text(path, json.dumps({"percent_of_eyes": float(moved.mean()), "faces": len(rows)}))
    return json.loads(path.read_text())["percent_of_eyes"]


def _best_blend(variants: list[Variant], faces: Faces) -> BestBlend | None:
    """The blend of all whole experiments that share the best one's split and are configs, without those that weigh nothing
    beside others; None where there are not two."""
    whole = [variant for variant in variants if _is_whole(variant) and variant.config_name]
    together = [variant for variant in whole if _same_split(variant.oof, whole[0].oof)]
    if len(together) < 2:
        return None

    def blended(members: list[Variant]) -> BestBlend:
        folders, configs = [member.run.folder for member in members], [member.run.config for member in members]
        return BestBlend(members, blend_oof(folders, configs, faces).blend)

    best = blended(together)
    kept = [variant for variant, weight in zip(together, best.blend.weights, strict=True) if weight]
    return best if len(kept) == len(together) else blended(kept)


def _is_whole(variant: Variant) -> bool:
    return len(finished_folds(variant.run.folder)) == variant.run.folds.max() + 1


def _same_split(one: Oof, other: Oof) -> bool:
    return np.array_equal(one.rows, other.rows) and np.array_equal(one.folds, other.folds)
