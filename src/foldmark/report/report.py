"""The report: one HTML file with everything about an experiment and how to repeat it. Trains and predicts nothing; what is
missing or damaged is left out, with the command that makes it."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from foldmark.core.config import format_config, list_overrides
from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE
from foldmark.ensemble.nested import check_taught, read_nested
from foldmark.models.trained import load_model
from foldmark.report.faces import show_held_out_faces, show_own_photos, show_test_faces
from foldmark.report.numbers import (
    build_summary,
    describe_consistency,
    describe_folds,
    describe_ledger,
    describe_regions,
    describe_sources,
    describe_standard_split,
    describe_uncertainty,
    describe_variants,
    show_cumulative_error,
    show_learning_curves,
)
from foldmark.report.part import PARTS, Part
from foldmark.report.results import Results, read_results
from foldmark.report.training import show_augmentation, show_filters, show_layers, show_samples
from foldmark.runs.experiment import Experiment, Session
from foldmark.runs.places import Places
from foldmark.runs.run_folder import RunFolder
from foldmark.show.page import SECTIONS_FILE, Chapter, Missing, Section, read_chapter, write_report
from foldmark.show.terminal import make_command, say, say_made

Found = Section | Missing | None

ABOUT_ALL = {*(part.target for part in PARTS.values()), "compare"}  # make targets that are about no single experiment


def make_report(session: Session, experiment: Experiment, variables: dict[str, str]) -> None:
    """Write runs/<name>/report.html about an experiment or a blend.

    experiment: its configs are what the user's settings mean now; what the runs were made with is read from their folders.
    variables: what the user has set for make, CONFIG and so on, for the commands in the page.
    Raises UserError where no fold is finished.
    """
    name, places = experiment.name, session.places
    if experiment.data.set == "imm":
        raise UserError(f"{name}: the parts on IMM have pages of their own, runs/part1/index.html; run make part1 or make part2.")
    results = read_results(experiment, places)
    lead, first = build_summary(results)
    found: list[Section | Missing] = []
    for title, command, build in SECTIONS:
        found += _build(title, command, partial(build, results))
    reproduce = _build("How to reproduce", "train", lambda: _reproduce(results, variables))
    chapters = [Chapter("The experiment", [first])]
    parts = [_part(places, part) for part in PARTS.values()]
    chapters += [part for part in parts if isinstance(part, Chapter)]
    chapters.append(Chapter("Part 3: the competition", [one for one in found if isinstance(one, Section)]))
    chapters.append(Chapter("How to reproduce", [one for one in reproduce if isinstance(one, Section)]))
    missing = [one for one in [*parts, *found, *reproduce] if isinstance(one, Missing)]
    missing = [Missing(one.what, make_command(one.command, _taken(one.command, variables))) for one in missing]
    path = results.folder.report_file
    write_report(path, f"Foldmark: {name}", lead, chapters, missing)
    for one in missing:
        say(f"left out: {one.what}; it is made by: {one.command}")
    say_made(f"{path} ({path.stat().st_size / MEGABYTE:.1f} MB)", "open it in a browser")


def _part(places: Places, part: Part) -> Chapter | Missing:
    folders = [places.run(name) for name in (part.name, f"{part.name}-synthetic")]
    folder = next((folder for folder in folders if (folder / SECTIONS_FILE).exists()), None)
    if folder is None:
        return Missing(part.title, part.target)
    try:
        return read_chapter(folder)
    except UserError as error:
        return _left_out(part.title, error, part.target)


def _build(title: str, command: str, build: Callable[[], Found | Sequence[Found]]) -> list[Section | Missing]:
    """The sections that `build` makes or, where a file for them is missing or damaged, what is left out and the command that
    makes it."""
    try:
        built = build()
    except UserError as error:
        return [_left_out(title, error, command)]
    return [one for one in (built if isinstance(built, Sequence) else [built]) if one is not None]


def _left_out(title: str, error: UserError, command: str) -> Missing:
    return Missing(f"{title} ({str(error).rstrip('.')})", command)


def _link_demo(results: Results) -> Section | Missing:
    page = results.places.demo(results.name)
    if not page.is_file():
        return Missing("Demo page", "demo")
    text = "One net of this experiment in the browser, on photos or the camera; no picture leaves the machine."
    return Section("Demo page", text, link=Path(os.path.relpath(page, results.folder.path)).as_posix())


def _show_distilled(results: Results) -> Section | None:
    """The nested figures of a net that was distilled from this experiment."""
    file = RunFolder(results.places.run(f"{results.name}-distilled")).nested_file
    if not file.is_file():
        return None
    check_taught(RunFolder(file.parent), results.runs[0].folder, results.runs[0].faces)
    nested = read_nested(file)
    text = (
        f"make distill judged these nets on {nested.faces} faces of fold {nested.fold}, which none of them has seen; in brackets "
        f"the 95 % interval. The net to take away: {nested.describe_net()}"
    )
    return Section("Distilled net", text, table=[net.row for net in nested.nets])


def _samples(results: Results) -> list[Found]:
    run, fold, figures = results.runs[0], results.first_fold, results.folder.figures
    listed = [show_layers(one.config, one.faces.markup.count, one.name) for one in results.runs]
    return [show_samples(run, fold, figures), show_augmentation(run, fold, figures), *listed]


def _filters(results: Results) -> Section:
    run = results.runs[0]
    checkpoint = run.fold(results.first_fold).checkpoint
    model = load_model(checkpoint, run.config, run.faces.markup.count, torch.device("cpu"))
    return show_filters(model.state_dict(), results.folder.figures, most=1)


# The sections of part 3: what each is called where it is left out, and the make target that makes it.
SECTIONS: list[tuple[str, str, Callable[[Results], Found | Sequence[Found]]]] = [
    ("Sampled pictures", "train", _samples),
    ("Learned filters", "train", _filters),
    ("Learning curves", "train", show_learning_curves),
    ("Folds", "train", describe_folds),
    ("Sources", "train", describe_sources),
    ("Standard split", "train CONFIG=300w", describe_standard_split),
    ("Cumulative error", "train", show_cumulative_error),
    ("Error by region", "train", describe_regions),
    ("Best, median and worst faces", "check", show_held_out_faces),
    ("Uncertainty", "train", describe_uncertainty),
    ("Test pictures", "csv", show_test_faces),
    ("Own photos", "photos PHOTOS=folder-with-your-photos", show_own_photos),
    ("Variants compared", "compare", describe_variants),
    ("Shift consistency", "compare", describe_consistency),
    ("Ledger", "csv", describe_ledger),
    ("Distilled net", "distill", _show_distilled),
    ("Demo page", "demo", _link_demo),
]


def _reproduce(results: Results, variables: dict[str, str]) -> list[Section]:
    notes = [run.folder.read_environment() for run in results.runs]
    columns = {}
    for run, one in zip(results.runs, notes, strict=True):
        config = run.config
        columns[run.folder.name] = {
            "revision": one.get("revision") or "not from a git checkout",
            "seed": f"{config.train.seed}; of the split {config.folds.seed}",
            "machine": str(one.get("platform", "")),
            "Python": str(one.get("python", "")),
            **{package: str(version or "") for package, version in one.get("versions", {}).items()},
        }
    rows = [
        {"Made with": what, **{name: values.get(what, "") for name, values in columns.items()}}
        for what in columns[results.runs[0].folder.name]
    ]
    changes = [
        list_overrides(asked, run.config) for asked, run in zip(results.experiment.members.values(), results.runs, strict=True)
    ]
    revisions = [str(one.get("revision") or "") for one in notes]
    commands = [f"git checkout {revisions[0].removesuffix('-dirty')}"] if revisions[0] else []
    if all(change == changes[0] for change in changes):
        commands.append(make_command("train", {**variables, "SET": " ".join(changes[0])}))
    else:
        for run in results.runs:
            begun = {"CONFIG": results.places.relative(run.folder.config_file), "NAME": run.folder.name}
            commands.append(make_command("train", {**variables, **begun}))
    commands += [make_command("csv", variables), make_command("report", variables)]
    dirty = any(revision.endswith("-dirty") for revision in revisions)
    changed = " The code had changes that are not committed (-dirty)." if dirty else ""
    text = f"The commands that make this page from the same data.{changed}"
    listings = {f"{run.folder.name}: the whole config, as YAML": format_config(run.config) for run in results.runs}
    return [Section("Commands and versions", text, table=rows, commands="\n".join(commands), listings=listings)]


def _taken(command: str, variables: dict[str, str]) -> dict[str, str]:
    """The user's variables that a make command takes."""
    return {key: value for key, value in variables.items() if key == "DATA_ROOT" or command not in ABOUT_ALL}
