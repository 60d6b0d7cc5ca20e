"""What is said of a search: its table and page, and each trial in W&B."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas
import yaml

from foldmark.core.files import write_text
from foldmark.report.wandb import collect_epoch_values
from foldmark.runs.fold_folder import FoldFolder
from foldmark.show.page import Chapter, Picture, Section, write_report
from foldmark.show.search_charts import Axis, Line, draw_importances, draw_parallel_coordinates
from foldmark.show.tracker import Tracker
from foldmark.train.listener import Listener
from foldmark.tune.folder import Search
from foldmark.tune.judge import Comparison, explain_gain
from foldmark.tune.search_file import Range
from foldmark.tune.space import Key
from foldmark.tune.study import BASE, FEWEST, Trial

NME, OOF_NME = "held-out NME %", "OOF NME %"  # after the last epoch in one pass; as the test faces will be predicted


@dataclass(frozen=True)
class SearchResults:
    """A search that has ended: its trials and the best of them, which may be the base; both compared on the folds that chose it
    and on those that judged no trial (None where it is the base); the share of each key in the variance."""

    search: Search
    trials: list[Trial]
    best: Trial
    searched: Comparison | None
    final: Comparison | None
    importances: dict[str, float] = field(default_factory=dict)

    @property
    def warning(self) -> list[str]:
        """How far the best is to be believed, in sentences."""
        if self.searched is None or self.final is None:
            return ["No trial was better than the base config on the folds that judged them."]
        return explain_gain(self.searched, self.final, len(self.trials))


def describe_trials(results: SearchResults) -> list[dict[str, str]]:
    """A row for each trial: the finished ones with the best first, then the pruned ones that came furthest, then the failed."""
    names = [key.name for key in results.search.space.keys]
    return [
        {
            "trial": f"{trial.number}{' (base)' * (trial.number == BASE)}",
            **{name: format_value(trial.values.get(name)) for name in names},
            "epochs": str(max(trial.curve or {}, default=0)),
            NME: f"{_last(trial):.2f}" if trial.curve else "",
            OOF_NME: "" if trial.nme is None else f"{trial.nme:.2f}",
            "outcome": trial.outcome,
            "minutes": f"{trial.seconds / 60:.1f}",
        }
        for trial in sorted(results.trials, key=_rank)
    ]


def describe_comparison(results: SearchResults) -> list[dict[str, str]]:
    """The base and the best side by side; empty where the base is the best."""
    if results.searched is None or results.final is None:
        return []
    columns = {"chose the best": results.searched, "judged no trial": results.final}
    titles = {what: f"fold {' '.join(map(str, one.folds))}, {what}" for what, one in columns.items()}

    def row(label: str, figures: Sequence[tuple[str, float, tuple[float, float]]]) -> dict[str, str]:
        shown = {titles[what]: f"{mean:.2f} ({low:.2f} to {high:.2f})" for what, mean, (low, high) in figures}
        return {"NME %, in brackets its 95 % interval": label, **shown}

    return [
        row("base (trial 0)", [(what, one.base, one.base_interval) for what, one in columns.items()]),
        row(f"best (trial {results.best.number})", [(what, one.best, one.best_interval) for what, one in columns.items()]),
        row("gain, face by face", [(what, one.gain, one.gain_interval) for what, one in columns.items()]),
        {"NME %, in brackets its 95 % interval": "faces", **{titles[what]: str(one.faces) for what, one in columns.items()}},
    ]


def format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_search(results: SearchResults, command: str) -> None:
    """Write the best trial's config, the table of trials, the figures and the page. command: that goes on with the best."""
    folder, space = results.search.folder, results.search.space
    config = space.make_config(results.best.values)
    settings = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    values = ", ".join(f"{name} {format_value(value)}" for name, value in results.best.values.items())
    notes = [f"Trial {results.best.number} of the search {folder.name}: {values}.", *results.warning]
    write_text(folder.best_config, "".join(f"# {note}\n" for note in notes) + settings)
    table = describe_trials(results)
    reasons = [trial.reason for trial in sorted(results.trials, key=_rank)]
    write_text(folder.trials_table, pandas.DataFrame(table).assign(reason=reasons).to_csv(index=False))
    chapters = [
        Chapter("The outcome", [Section("Best and base", " ".join(results.warning), table=describe_comparison(results))]),
        Chapter("The search", [_describe_trials(results, table), _show_coordinates(results), _show_importances(results)]),
        Chapter("The best config", [Section("Config", commands=command, listings={folder.best_config.name: settings})]),
    ]
    write_report(folder.report_file, f"Foldmark: {folder.name}", _summarise(results), chapters, [])


def _summarise(results: SearchResults) -> str:
    note = "These are synthetic faces: the figures say nothing about real ones. " if results.search.base.data.synthetic else ""
    counts = [(what, sum(trial.outcome == what for trial in results.trials)) for what in ("finished", "pruned", "failed")]
    said = ", ".join(f"{count} {what}" for what, count in counts)
    folds = " ".join(map(str, results.search.file.folds))
    best = results.best.number
    return f"{note}{len(results.trials)} trials ({said}), judged by the out-of-fold NME of fold {folds}. Best: trial {best}."


def _describe_trials(results: SearchResults, table: list[dict[str, str]]) -> Section:
    text = (
        "Trial 0 is the base config. The values of the others are sampled by TPE (Bergstra et al. 2011) from the figures of "
        "those before; a trial that is not among the best third after a ninth or a third of the epochs is pruned (successive "
        f"halving, Li et al. 2020). {NME}: of the last epoch, in one pass. {OOF_NME}: predicted as the test faces will be."
    )
    return Section("Trials", text, table=table)


def _show_coordinates(results: SearchResults) -> Section:
    keys, path = results.search.space.keys, results.search.folder.figures / "parallel-coordinates.svg"
    scores = [trial.nme for trial in results.trials if trial.nme is not None]
    low, high = min(scores), max(scores)
    ticks = [(place, f"{low + place * (high - low):.2f}") for place in ((0, 0.5, 1) if high > low else (0,))]
    axes = [*(Axis(key.name, _ticks(key)) for key in keys), Axis(OOF_NME, ticks)]
    lines = []
    for trial in results.trials:
        places = [_place(key, trial.values[key.name]) for key in keys]
        if trial.nme is not None:
            places.append((trial.nme - low) / ((high - low) or 1))
        kind = "best" if trial.number == results.best.number else "base" if trial.number == BASE else trial.outcome
        if kind != "running":
            lines.append(Line(places, kind))
    draw_parallel_coordinates(path, axes, lines)
    caption = "Each trial is a line from its values to its OOF NME (lower is better); pruned and failed trials have none."
    return Section("Values and results", pictures=[Picture(path, caption)])


def _show_importances(results: SearchResults) -> Section:
    finished, folder = sum(trial.nme is not None for trial in results.trials), results.search.folder
    if not results.importances:
        return Section("Importance of the keys", f"Not computed: fewer than {FEWEST} trials finished with figures that differ.")
    path = folder.figures / "importances.svg"
    draw_importances(path, results.importances)
    caption = f"fANOVA (Hutter et al. 2014) of the {finished} finished trials; of few trials it is a rough guide."
    return Section("Importance of the keys", pictures=[Picture(path, caption)])


def _ticks(key: Key) -> list[tuple[float, str]]:
    if isinstance(key.values, list):
        return [(_place(key, value), format_value(value)) for value in key.ends]
    low, high = key.values.low, key.values.high
    middle = math.sqrt(low * high) if key.values.log else (low + high) / 2
    return [(_place(key, value), f"{value:.3g}") for value in (low, middle, high)]


def _place(key: Key, value: float | str) -> float:
    """Where a value stands on its axis, from 0 to 1."""
    if not isinstance(key.values, Range):
        return key.values.index(key.store(value)) / (len(key.values) - 1)
    low, high, at = key.values.low, key.values.high, float(value)
    if key.values.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)


def _last(trial: Trial) -> float:
    curve = trial.curve or {}
    return curve[max(curve)]


def _rank(trial: Trial) -> tuple:
    order = ["finished", "running", "pruned", "failed"].index(trial.outcome)
    if trial.nme is not None:
        return order, 0, trial.nme, trial.number
    return order, -max(trial.curve or {}, default=0), _last(trial) if trial.curve else 0.0, trial.number


class TrialCurve(Listener):
    """Shows the epochs of one of a trial's folds in the trial's W&B run, as steps counted over all of its folds.

    before: the steps of the folds before.
    """

    def __init__(self, tracker: Tracker, folder: FoldFolder, before: int) -> None:
        self.tracker, self.folder, self.before = tracker, folder, before
        self.shown = 0  # epochs

    def begin(self, epochs_done: int) -> None:
        """Also those of before a kill, so that no gap is left."""
        for row in self.folder.read_epochs()[:epochs_done]:
            self._show(row)

    def epoch(self, row: dict, points_px: object) -> None:
        self._show(row)

    def _show(self, row: dict) -> None:
        if row["epoch"] > self.shown:
            self.shown = row["epoch"]
            self.tracker.log({**collect_epoch_values(row), "fold": self.folder.number}, self.before + row["epoch"])


def summarise_trial(tracker: Tracker, trial: Trial, outcome: dict) -> None:
    """How a trial ended, with its number and values, in its W&B run."""
    values = {f"searched/{name}": value for name, value in trial.values.items()}
    shown = {name: outcome[name] for name in ("outcome", "reason") if outcome.get(name)}
    nme = {"oof_nme": outcome["nme"]} if outcome.get("nme") is not None else {}
    tracker.summary({"trial": trial.number, **shown, **nme, **values})
