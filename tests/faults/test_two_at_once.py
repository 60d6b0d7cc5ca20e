"""Commands that are started together on one project: each ends well or is refused in one sentence, and afterwards every file and
figure is as after one command alone.

FOLDMARK_ROUNDS=50 starts every pair of commands so often; `make soak` does.
"""

import itertools
import os
import random
import time

import pytest

from tests.commandline import fork_process
from tests.faults.project import COMMANDS, A, Project, Whole, figure_lines, same_content

ROUNDS = int(os.environ.get("FOLDMARK_ROUNDS", "0"))
PAIRS = list(itertools.combinations_with_replacement([name for name, text in COMMANDS.items() if isinstance(text, str)], 2))
# So that each command has something to do.
REMOVED = (f"runs/{A}/fold1/summary.json", f"submissions/{A}.csv", "runs/compare.csv", f"runs/{A}/fold0/test.npz")


@pytest.fixture
def project(whole):
    """The project, with something to do for each command; as it was afterwards."""
    project, snapshot = whole.project, whole.snapshot
    for name in REMOVED:
        (project.folder / name).unlink(missing_ok=True)
    for path in (project.folder / "cache").glob("*.*"):
        path.unlink()
    yield project
    snapshot.put_back()


def start_together(project: Project, *commands: str, apart: float = 0.0) -> list[tuple[int, str]]:
    """Exit code and output of commands that are started together, or so many seconds apart."""
    said = [project.folder.parent / f"said{number}.txt" for number in range(len(commands))]
    processes = []
    for file, command in zip(said, commands, strict=True):
        processes.append(fork_process(project.folder, file, *project.words(command)))
        time.sleep(apart)
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, f"{commands}: still not ended"
    return [(process.exitcode, file.read_text()) for process, file in zip(processes, said, strict=True)]


def assert_ended_well(ended: list[tuple[int, str]], story: str = "") -> None:
    for code, out in ended:
        assert "Traceback" not in out, story + out
        sentences = [line for line in out.splitlines() if line.startswith("foldmark: ")]
        assert (code, len(sentences)) in ((0, 0), (2, 1)), story + out


def assert_whole(whole: Whole, story: str = "") -> None:
    """What the next commands find and print is what they find after one command alone."""
    for name in ("train", "csv", "compare"):
        done = whole.project.command(name)
        assert done.code == 0, f"{story}then {name}: {done.bug}{done.out}{done.err}"
        assert figure_lines(done.out) <= whole.lines, story
    for path, was in whole.snapshot.content.items():
        there = whole.project.folder / path
        if path.parts[0] != "cache":
            assert there.is_file(), f"{story}{path} is lost"
            assert same_content(path, was, there.read_bytes()), f"{story}{path} changed"
    assert not list(whole.project.folder.rglob("*.partial")), story


@pytest.mark.parametrize(
    "commands",
    [("csv", "csv"), ("csv", "submit"), ("train", "train"), ("train", "csv"), ("csv", "csv blend"), ("compare", "compare")],
    ids=" and ".join,
)
def test_two_at_once_leave_what_one_alone_leaves(project, whole, commands):
    ended = start_together(project, *(COMMANDS[name] for name in commands))
    assert_ended_well(ended)
    assert any(code == 0 for code, _ in ended) or "train" not in commands, ended
    assert_whole(whole)


def test_of_two_first_starts_with_other_settings_one_wins_and_the_other_is_refused(project):
    train = "train --config a --name new --data-root @ --device cpu --set "
    ended = start_together(project, f"{train}folds.seed=1", f"{train}folds.seed=2")
    assert_ended_well(ended)
    assert sorted(code for code, _ in ended) == [0, 2], ended
    won, lost = sorted(ended)
    assert "was made with another config: folds.seed" in lost[1]
    chosen = 1 + ended.index(won)
    assert f"seed: {chosen}" in (project.folder / "runs/new/config.yaml").read_text()
    again = project.run_foldmark(f"{train}folds.seed={chosen}")
    assert again.returncode == 0, again.stderr


def test_scores_that_are_noted_together_are_all_kept(project):
    ledger = project.folder / "submissions/ledger.csv"
    header, row, *_ = ledger.read_text().splitlines()
    names = [f"copy{number}" for number in range(8)]
    for name in names:
        (project.folder / f"submissions/{name}.csv").write_bytes((project.folder / "submissions/ab-synthetic.csv").read_bytes())
    blend = next(line for line in ledger.read_text().splitlines() if line.startswith("ab-synthetic.csv"))
    ledger.write_text("\n".join([header, row, *(blend.replace("ab-synthetic.csv", f"{name}.csv") for name in names)]) + "\n")
    ended = start_together(project, *(f"score submissions/{name}.csv 7.{number}" for number, name in enumerate(names, start=1)))
    assert [code for code, _ in ended] == [0] * 8, ended
    assert [line.rsplit(",", 1)[1] for line in ledger.read_text().splitlines()[2:]] == [f"7.{number}" for number in range(1, 9)]


@pytest.mark.parametrize("commands", PAIRS if ROUNDS else [], ids=" and ".join)
def test_every_pair_of_commands_at_any_moment(project, whole, commands):
    rng = random.Random(" and ".join(commands))
    for number in range(ROUNDS):
        for name in REMOVED:
            (project.folder / name).unlink(missing_ok=True)
        apart = rng.choice([0.0, rng.uniform(0, 0.5)])
        ended = start_together(project, *(COMMANDS[name] for name in commands), apart=apart)
        story = f"{' and '.join(commands)}, round {number}, {apart:.3f} s apart: "
        assert_ended_well(ended, story)
        assert_whole(whole, story)
        whole.snapshot.put_back()
