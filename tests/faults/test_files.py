"""Every file that a command writes, damaged in every way, times every command: no traceback, no endless wait, no wrong figure, no
lost file. What is damaged is either made again, or named in one sentence with exit code 2.

The files are those of a real project, so a new file is in it by itself. The suite takes each file with every fifth kind of damage
and one of the commands that open it, another one for each; FOLDMARK_SOAK takes all of both, as `make soak` does.
"""

import os
import re
from pathlib import Path

import pandas
import pytest

from foldmark.cli import app
from tests.faults.damage import KINDS
from tests.faults.project import (
    COMMANDS,
    A,
    Done,
    Whole,
    figure_lines,
    report_lines,
    same_content,
)

# Those that neither read nor write what the others wrote, need the network, or take minutes.
LEFT_OUT = {
    *("data", "synthetic", "model", "dashboard", "sync", "workspace"),
    *("part1", "part2", "extra", "photos", "export", "demo", "distill", "tune"),
}
CSV = f"submissions/{A}.csv"
SAMPLED = 5  # the suite takes one kind of damage in so many
# What a command of COMMANDS removes itself, before it is run.
REMOVED = {"csv again": CSV, "train again": f"runs/{A}/fold1/summary.json"}


def others_of(path: Path, files: list[Path]) -> list[Path]:
    """Files of the same name in another fold or run, the nearest first, and those that differ in a run's name or a digest."""

    def name(one: Path) -> str:
        return re.sub(r"[0-9a-f]{16}|\b(a|b|ab)-synthetic", "*", one.name)

    same = [one for one in files if one != path and name(one) == name(path) and len(one.parts) == len(path.parts)]
    return sorted(same, key=lambda one: one.parent.parent != path.parent.parent)


def product(whole: Whole, *, all_commands: bool) -> list[tuple[Path, str, str]]:
    """The cases: file, kind of damage, command."""
    files, cases = list(whole.openers), []
    for place, path in enumerate(files):
        kinds = [kind for kind in KINDS if not kind.endswith("another's") or others_of(path, files)]
        for number, kind in enumerate(kinds):
            if all_commands:
                cases += [(path, kind, command) for command in COMMANDS]
            elif (place + number) % SAMPLED == 0:
                cases += [(path, kind, command) for command in _choose(whole, path, place + number)]
    return cases


def _choose(whole: Whole, path: Path, turn: int) -> list[str]:
    """One of the commands that open the file, else of all; the report only now and then, because it takes seconds."""
    commands = whole.openers[path] or list(COMMANDS)
    commands = [name for name in commands if name != "report" or turn % 40 == 0] or ["ledger"]
    return [commands[turn % len(commands)]]


def problems_of(whole: Whole, path: Path, kind: str, command: str) -> list[str]:
    """What a command did wrong in a project with that damage, which is then undone."""
    project, content = whole.project, whole.snapshot.content
    there = project.folder / path
    KINDS[kind](there, [project.folder / one for one in others_of(path, list(content))])
    damaged = _state(there)
    try:
        done = project.command(command)
        return [*_judge_end(done), *_judge_figures(whole, done, command), *_judge_files(whole, path, damaged, done, command)]
    finally:
        whole.snapshot.put_back()


def _state(path: Path) -> object:
    """What is there: bytes of a file, or what kind of thing."""
    if path.is_symlink() or not path.is_file():
        return (path.is_symlink(), path.is_dir(), path.exists())
    return path.read_bytes()


def _judge_end(done: Done) -> list[str]:
    if done.bug:
        return [done.bug]
    sentences = [line for line in done.err.splitlines() if line.startswith("foldmark: ")]
    if done.code == 2 and len(sentences) == 1 and "Traceback" not in done.err:
        return []
    return [] if done.code == 0 and not sentences else [f"exit code {done.code}: {done.err}"]


def _judge_figures(whole: Whole, done: Done, command: str) -> list[str]:
    printed = figure_lines(done.out)
    if command == "report" and done.code == 0 and not done.bug:
        printed |= report_lines(whole.project.folder)
    wrong = sorted(printed - whole.lines)
    if command == "compare":
        wrong = [line for line in wrong if not line.startswith("Intervals: 95 %")]
    return [f"another figure: {line[:300]}" for line in wrong]


def _judge_files(whole: Whole, path: Path, damaged: object, done: Done, command: str) -> list[str]:
    folder, problems = whole.project.folder, []
    for one, was in whole.snapshot.content.items():
        now = _state(folder / one)
        if one == path and now == damaged:
            made_here = str(one) == CSV and command in ("csv", "csv again", "submit") and done.code == 0
            if made_here and damaged != was:
                problems.append(f"{one} was left as it is")
        elif not isinstance(now, bytes):
            problems += [] if done.code == 2 and REMOVED.get(command) == str(one) else [f"{one} is lost"]
        elif now != was and (one.match("submissions/*-synthetic.csv") or not same_content(one, was, now)):
            known = str(one) == "runs/compare.csv" and _same_rows(folder / one, was)
            # A fold without its checkpoint is trained again, and the fit names the new one.
            known |= path.name == "last.pt" and one.name == "ensemble.json" and command.startswith("train")
            # A ledger that is gone begins anew, with the row of the file that is there.
            known |= one == path and one.name == "ledger.csv"
            problems += [] if known or one.suffix == ".html" else [f"{one} changed"]
    left = list(whole.project.folder.rglob("*.partial"))
    return problems + [f"{one} was left" for one in left]


def _same_rows(path: Path, was: bytes) -> bool:
    """Whether the rows of a comparison are those it had, but for what is measured against another row."""
    from io import BytesIO

    before, now = (pandas.read_csv(one, dtype=str).set_index("experiment") for one in (BytesIO(was), path))
    before, now = (table.drop(columns=["to the best", "minutes"]) for table in (before, now))
    # What cannot be measured is left empty.
    now["moves %"] = now["moves %"].fillna(before["moves %"])
    return set(now.index) <= set(before.index) and now.equals(before.loc[now.index])


def test_every_command_is_either_tried_or_left_out_for_a_reason():
    tried = {name.split()[0] for name in COMMANDS} - {"load"}
    assert tried | LEFT_OUT == set(app.commands)
    assert not tried & LEFT_OUT


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_made_again_or_named_and_no_figure_changes(whole, kind, capsys):
    soak = bool(os.environ.get("FOLDMARK_SOAK"))
    cases = [case for case in product(whole, all_commands=soak) if case[1] == kind]
    found = {case: problems for case in cases if (problems := problems_of(whole, *case))}
    with capsys.disabled():
        print(f"\n{kind}: {len(whole.openers)} files, {len(cases)} cases, {len(found)} with problems")
    assert len(cases) >= 10
    told = [f"{path}, {kind}, {command}: " + "; ".join(problems) for (path, _, command), problems in found.items()]
    assert not found, "\n".join(told)
