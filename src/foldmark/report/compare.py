"""All trained experiments in one table of out-of-fold (OOF) figures, and their best blend. Trains nothing.

Experiments need not share a split to stand in one table, because each figure is of faces that its models never saw; to be blended
they must.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256, read_kept, write_text
from foldmark.core.metrics import TABLE_METRICS, bootstrap_interval
from foldmark.data.sets import Data
from foldmark.ensemble.blend import Blend, blend_oof
from foldmark.ensemble.oof import Oof, read_oof
from foldmark.models.consistency import measure_shift_consistency
from foldmark.models.trained import load_model
from foldmark.runs.fold_folder import ALL_FACES
from foldmark.runs.places import Places
from foldmark.runs.run import Run, open_run
from foldmark.runs.run_folder import NOTHING_HELD_OUT, RunFolder
from foldmark.tune.folder import is_trial

log = logging.getLogger(__name__)

CONSISTENCY_FACES = 100  # of the first finished fold

BASELINE = "seed"  # the row to beat stands first

# The columns of a wide terminal and of the report; runs/compare.csv has the regions as well.
METRIC_TITLES = [metric.title for metric in TABLE_METRICS.values()]
SHOWN = ["experiment", "folds", *METRIC_TITLES, "NME 95 %", "to the best", "moves %", "minutes", "parameters"]
NARROW = ["experiment", "folds", *METRIC_TITLES, "NME 95 %", "moves %"]


@dataclass(frozen=True)
class Variant:
    """A trained experiment with its OOF predictions. config_name: of the config in configs/ that its name says, if there is
    one."""

    name: str
    run: Run
    oof: Oof
    config_name: str | None

    @property
    def whole(self) -> bool:
        """Whether all folds are finished."""
        return len(self.run.folder.finished) == self.run.folds.max() + 1


class Consistency(BaseModel):
    """Shift consistency of a fold's model, in percent of the eye distance, over so many held-out faces. checkpoint: its
    sha256."""

    model_config = ConfigDict(allow_inf_nan=False)

    percent_of_eyes: float
    faces: int
    checkpoint: str


@dataclass(frozen=True)
class BestBlend:
    """The experiments whose blend is best, perhaps only one, and that blend."""

    members: list[Variant]
    oof: Oof
    blend: Blend

    @property
    def name(self) -> str:
        return " + ".join(member.name for member in self.members)


def find_variants(places: Places, data: Data) -> list[Variant]:
    """The trained experiments on this data, the best first, those with all folds before others, whose faces may be easier; those
    that cannot be read are logged and left out. Raises UserError if there is none."""
    variants = []
    for folder in sorted(path.parent for path in places.runs.rglob("config.yaml")):
        run_folder = RunFolder(folder)
        # The OOF figures of a search's trials flatter: they chose the best.
        if not run_folder.finished or is_trial(folder):
            if not run_folder.finished and run_folder.fold(ALL_FACES).finished:
                log.info("not compared: %s: %s", folder, NOTHING_HELD_OUT)
            continue
        name = folder.relative_to(places.runs).as_posix()
        try:
            config = run_folder.read_config()
            # A run of another set, or of a few points of it, measures something else.
            if config.data.set != data.set or config.data.points:
                continue
            run = open_run(places, name, config, data)
            oof = read_oof(run_folder, run.faces)
        except UserError as error:
            log.info("not compared: %s", error)
            continue
        stem = name.removesuffix("-synthetic")
        config_name = stem if (places.configs / f"{stem}.yaml").is_file() else None
        variants.append(Variant(name, run, oof, config_name))
    if not variants:
        raise UserError(f"{places.runs}: no experiment with a finished fold on {data.folder}; run make train first.")
    return sorted(variants, key=lambda variant: (not variant.whole, variant.oof.nme.mean()))


def compare_variants(variants: list[Variant], best_blend: BestBlend | None, device: torch.device) -> list[dict]:
    """A row for each variant, given the best first, the baseline in front, and for their best blend where it has several
    members."""
    best = variants[0]
    ordered = sorted(variants, key=lambda variant: variant.config_name != BASELINE)
    rows = [_describe_variant(variant, best, device) for variant in ordered]
    if best_blend and len(best_blend.members) > 1:
        rows.append(_describe_blend(best_blend, best, rows))
    return rows


def find_best_blend(variants: list[Variant]) -> BestBlend | None:
    """The blend of all whole experiments that share the best one's split and are configs, without those of no weight; None where
    there are not two."""
    whole = [variant for variant in variants if variant.whole and variant.config_name]
    together = [variant for variant in whole if variant.oof.same_split(whole[0].oof)]
    if len(together) < 2:
        return None

    def blend(members: list[Variant]) -> BestBlend:
        folders, configs = [member.run.folder for member in members], [member.run.config for member in members]
        return BestBlend(members, *blend_oof(folders, configs, members[0].run.faces))

    best = blend(together)
    kept = [variant for variant, weight in zip(together, best.blend.weights, strict=True) if weight]
    return best if len(kept) == len(together) else blend(kept)


def keep_consistency(run: Run, fold: int, device: torch.device) -> float:
    """Shift consistency of a fold's model on some of its held-out faces, in percent of the eye distance; measured once and kept
    in the fold's folder. Raises UserError for a model that cannot be loaded."""
    path, checkpoint = run.fold(fold).consistency_file, file_sha256(run.fold(fold).checkpoint)
    kept = read_kept(path, Consistency.model_validate_json)
    # One of another model must not be taken for this one's.
    if kept is None or kept.checkpoint != checkpoint:
        model = load_model(run.fold(fold).checkpoint, run.config, run.faces.markup.count, device)
        held_out = run.held_out_rows(fold)
        rows = held_out[np.linspace(0, len(held_out) - 1, min(CONSISTENCY_FACES, len(held_out))).astype(int)]
        percent = float(measure_shift_consistency(model, run, rows).mean())
        kept = Consistency(percent_of_eyes=percent, faces=len(rows), checkpoint=checkpoint)
        write_text(path, kept.model_dump_json())
    return kept.percent_of_eyes


def _describe_variant(variant: Variant, best: Variant, device: torch.device) -> dict:
    run, folds = variant.run, variant.run.folder.finished
    try:
        moves = f"{keep_consistency(run, folds[0].number, device):.2f}"
    except UserError as error:
        log.info("shift consistency of %s not measured: %s", variant.name, error)
        moves = ""
    summaries = [fold.require_summary() for fold in folds]
    return {
        "experiment": variant.name,
        "folds": f"{len(folds)} of {run.folds.max() + 1}",
        "faces": len(variant.oof),
        **_figures(variant.oof),
        "to the best": "" if variant is best else _compare_to(variant.oof, best.oof),
        "moves %": moves,
        "minutes": f"{sum(summary['seconds'] for summary in summaries) / 60:.0f}",
        "parameters": f"{summaries[0]['parameters']:,}",
        **_regions(variant.oof),
    }


def _describe_blend(blended: BestBlend, best: Variant, rows: list[dict]) -> dict:
    """Its nested figures; the minutes and parameters are those of its members together. How far its points move is not
    measured."""
    parts = [row for row in rows if row["experiment"] in {member.name for member in blended.members}]
    return {
        "experiment": blended.name,
        "folds": parts[0]["folds"],
        "faces": len(blended.oof),
        **_figures(blended.oof),
        "to the best": _compare_to(blended.oof, best.oof),
        "moves %": "",
        "minutes": f"{sum(int(row['minutes']) for row in parts)}",
        "parameters": f"{sum(int(row['parameters'].replace(',', '')) for row in parts):,}",
        **_regions(blended.oof),
    }


def _figures(oof: Oof) -> dict[str, str]:
    figures, (low, high) = oof.scores(), oof.interval()
    shown = {metric.title: metric.format(figures[key]) for key, metric in TABLE_METRICS.items()}
    return {**shown, "NME 95 %": f"{low:.2f} to {high:.2f}"}


def _regions(oof: Oof) -> dict[str, str]:
    return {f"NME % {name}": f"{value:.2f}" for name, value in oof.regions().items()}


def _compare_to(oof: Oof, best: Oof) -> str:
    """The difference of NME to the best experiment on the faces that both have predicted, with its interval."""
    _, mine, others = np.intersect1d(oof.rows, best.rows, return_indices=True)
    if not len(mine):
        return "no face in common"
    difference = oof.nme[mine] - best.nme[others]
    low, high = bootstrap_interval(difference, best.faces.take(others).groups)
    return f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"
