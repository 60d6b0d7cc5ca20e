"""`make compare`: all trained experiments in one table, and their best blend. `foldmark model`: what a variant consists of."""

from collections.abc import Sequence

import pandas
import torch

from foldmark.core.config_file import load_config
from foldmark.core.files import write_text
from foldmark.core.metrics import RESAMPLES
from foldmark.data.sets import Data, pick_set
from foldmark.models.device import pick_device
from foldmark.models.net import build_model, list_layers
from foldmark.report.compare import NARROW, SHOWN, BestBlend, Variant, compare_variants, find_best_blend, find_variants
from foldmark.runs.experiment import Session
from foldmark.show.terminal import say, say_made, say_table


def compare(session: Session, data: Data) -> None:
    """Print the table of all experiments on this data and of their best blend, write it to runs/compare.csv, and print the
    command that makes the blend's file."""
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
    _say_next(variants, best_blend)


def _say_next(variants: list[Variant], best: BestBlend | None) -> None:
    if best is None:
        say("best blend: needs two experiments with all folds of the same split, each named as its config.")
        say("Next: make train CONFIG=... (another variant), or make csv submit")
        return
    weights = [f"{member.name} {weight:.2f}" for member, weight in zip(best.members, best.blend.weights, strict=True)]
    say(f"best blend: {', '.join(weights)}")
    names = [str(member.config_name) for member in best.members]
    if len(names) == 1:
        say(f"The others get no weight beside it. Next: make csv CONFIG={names[0]}")
        return
    config = f"'blend: [{', '.join(names)}]'"
    say(f"Next, to make its file: echo {config} > configs/best.yaml && make csv CONFIG=best")


def show_model(session: Session, model: str, overrides: Sequence[str]) -> None:
    """Print a variant's layers, parameters and operations."""
    config = load_config(model, session.places.configs, overrides)
    points = len(config.data.points) if config.data.points else pick_set(config.data.set).markup.count
    print(list_layers(build_model(config, torch.zeros(points, 2), seed=0), config))
