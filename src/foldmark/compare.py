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
from rich.table import Table

from foldmark.blend import Blend, blend_oof
from foldmark.config import config_path
from foldmark.consistency import shift_consistency
from foldmark.data import Data
from foldmark.device import pick_device
from foldmark.ensemble import Oof, load_model, read_experiment_oof
from foldmark.errors import UserError
from foldmark.faces import Faces
from foldmark.files import write_text
from foldmark.metrics import face_nme, failures, region_nme, scores
from foldmark.model import parameters
from foldmark.progress import console
from foldmark.run import RUNS, Run, finished_folds, open_run, read_summary, stored_config

CONSISTENCY_FACES = 100  # of the first finished fold
RESAMPLES = 2000
LEAST_WEIGHT = 0.02  # an experiment with less is left out of the blend

# What the terminal shows; runs/compare.csv has the regions as well.
SHOWN = ["experiment", "folds", "MAE px", "NME %", "95 %", "over 8 %", "to the best", "moves %", "minutes", "parameters"]


@dataclass(frozen=True)
class Variant:
    """An experiment with its OOF predictions, and the NME in percent of each of its faces (n,)."""

    name: str
    run: Run
    oof: Oof
    nme: np.ndarray


def compare(data: Data, device_name: str) -> None:
    """Print the table of all experiments on this data, write it to runs/compare.csv, and print the best blend's command."""
    device = pick_device(device_name)
    variants = sorted(_variants(data), key=lambda variant: variant.nme.mean())
    if not variants:
        raise UserError(f"{RUNS}: no experiment with a finished fold on {data.folder}; run make train first.")
    rows = [_row(variant, variants[0], device) for variant in variants]
    table = Table(box=SIMPLE)
    for title in SHOWN:
        table.add_column(title, overflow="fold", justify="left" if title == "experiment" else "right")
    for row in rows:
        table.add_row(*(str(row[title]) for title in SHOWN))
    console.print(table)
    path = RUNS / "compare.csv"
    write_text(path, pandas.DataFrame(rows).to_csv(index=False))
    console.print(
        f"made: {path}, with the NME of each region. Intervals: 95 %, photos resampled {RESAMPLES} times; to the best: the "
        "difference of NME on the same faces; moves: how far points walk on a face that shifts by 1 to 8 px, % of the eyes."
    )
    _print_best_blend(variants, data.train)


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
            console.print(f"not compared: {error}")
            continue
        variants.append(Variant(name, run, oof, face_nme(oof.points_px, run.faces.take(oof.rows))))
    return variants


def _row(variant: Variant, best: Variant, device: torch.device) -> dict:
    run, oof = variant.run, variant.oof
    faces = run.faces.take(oof.rows)
    folds = finished_folds(run.folder)
    figures = scores(oof.points_px, faces)
    low, high = resampled_interval(variant.nme, faces.groups)
    model = load_model(run.fold_folder(folds[0]) / "last.pt", run.config, run.faces.markup.count, device)
    return {
        "experiment": variant.name,
        "folds": f"{len(folds)} of {run.folds.max() + 1}",
        "faces": len(oof.rows),
        "MAE px": f"{figures['mae_px']:.2f}",
        "NME %": f"{figures['nme']:.2f}",
        "95 %": f"{low:.2f} to {high:.2f}",
        "over 8 %": f"{failures(variant.nme):.1f} %",
        "to the best": _to_the_best(variant, best),
        "moves %": f"{kept_consistency(run, folds[0], model, device):.2f}",
        "minutes": f"{sum(read_summary(run.fold_folder(fold))['seconds'] for fold in folds) / 60:.0f}",
        "parameters": f"{parameters(model):,}",
        **{f"NME % {name}": f"{value:.2f}" for name, value in region_nme(oof.points_px, faces).items()},
    }


def _to_the_best(variant: Variant, best: Variant) -> str:
    """The difference of NME on the faces that both have predicted, with its interval."""
    if variant is best:
        return ""
    _, mine, others = np.intersect1d(variant.oof.rows, best.oof.rows, return_indices=True)
    if not len(mine):
        return "no face in common"
    difference = variant.nme[mine] - best.nme[others]
    low, high = resampled_interval(difference, variant.run.faces.take(variant.oof.rows[mine]).groups)
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
        moved = shift_consistency(model, run, rows, device)
        write_text(path, json.dumps({"percent_of_eyes": float(moved.mean()), "faces": len(rows)}))
    return json.loads(path.read_text())["percent_of_eyes"]


def _print_best_blend(variants: list[Variant], faces: Faces) -> None:
    """Blend all experiments that share the best one's split and are configs, leave out those that weigh nothing, and print
    how to make the blend's competition file."""
    whole = [variant for variant in variants if _is_whole(variant) and _is_config(variant.name)]
    together = [variant for variant in whole if _same_split(variant.oof, whole[0].oof)]
    if len(together) < 2:
        console.print("best blend: needs two experiments with all folds of the same split, each named as its config.")
        console.print("Next: make train CONFIG=... (another variant), or make csv submit", markup=False)
        return

    def blended(members: list[Variant]) -> Blend:
        return blend_oof([member.run.folder for member in members], [member.run.config for member in members], faces).blend

    result = blended(together)
    kept = [variant for variant, weight in zip(together, result.weights, strict=True) if weight >= LEAST_WEIGHT]
    if len(kept) < len(together):
        result = blended(kept)
    figures = scores(result.oof_px, faces.take(together[0].oof.rows))
    weights = ", ".join(f"{variant.name} {weight:.2f}" for variant, weight in zip(kept, result.weights, strict=True))
    names = ", ".join(variant.name for variant in kept)
    console.print(f"best blend: {weights}: out-of-fold, nested, MAE {figures['mae_px']:.2f} px, NME {figures['nme']:.2f} %")
    console.print(f"Next, to make its file: echo 'blend: [{names}]' > configs/best.yaml && make csv CONFIG=best", markup=False)


def _is_whole(variant: Variant) -> bool:
    return len(finished_folds(variant.run.folder)) == variant.run.folds.max() + 1


def _is_config(name: str) -> bool:
    try:
        config_path(name)
    except UserError:
        return False
    return True


def _same_split(one: Oof, other: Oof) -> bool:
    return np.array_equal(one.rows, other.rows) and np.array_equal(one.folds, other.folds)
