"""Terminal output while folds train: in a real terminal, in one of a CI machine, and in a pipe."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.show.test_tracker import SOURCE

# What training tells the table, without the training.
FOLDS = """
import time
from foldmark.show.training_table import TrainingTable
with TrainingTable() as table:
    table.add(["0", "1", "2"], epochs=4)
    done = {"epochs": 4, "seconds": 600, "mae_px": 3.21, "nme": 4.32}
    table.rows[0].end(done)
    for step in range(1, 5):
        table.rows[1].batch(step / 4, 5.0)
        time.sleep(0.35)
    table.rows[1].epoch({"epoch": 1, "train_mae_px": 5.5, "mae_px": 6.66, "nme": 7.77, "faces_per_second": 88.8})
    time.sleep(1.5)
"""
SEQUENCES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(rb"\x1b\[[0-9;]*3[0-7]")


@pytest.fixture
def in_terminal():
    """Run FOLDS in a terminal of 100 columns; gives what it wrote there."""

    def run(**more: str) -> bytes:
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "FORCE_COLOR")}
        environment |= {"PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"} | more
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", FOLDS], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
        )
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how Linux tells that the other end is closed
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        assert process.wait(60) == 0, shown
        return shown

    return run


def rows(shown: bytes) -> list[list[str]]:
    """The last drawing of the table, without its header: the cells of each row."""
    lines = SEQUENCES.sub(b"", shown).decode().replace("\r", "\n").splitlines()
    drawn = [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"\s*[012]\s", line)]
    return drawn[-3:]


def test_a_terminal_has_a_table_of_all_folds_in_which_finished_ones_stay(in_terminal):
    shown = in_terminal()
    finished, trains, waits = rows(shown)
    assert finished[0] == "0"
    assert {"4/4", "3.21", "4.32", "took 10 min"} <= set(finished)
    assert {"2/4", "5.50", "6.66", "7.77", "89"} <= set(trains)
    assert re.fullmatch(r"\d+ s|\d+ min", trains[-1])
    assert waits == ["2", "waits"]
    assert COLOURS.search(shown)
    assert b"epoch 1/4" not in shown  # no line an epoch beside the table


def test_no_color_takes_the_colours_and_leaves_the_table(in_terminal):
    shown = in_terminal(NO_COLOR="1")
    assert not COLOURS.search(shown)
    assert len(rows(shown)) == 3


@pytest.mark.parametrize("more", [{"CI": "true"}, {"TERM": "dumb"}])
def test_a_ci_machine_and_a_dumb_terminal_have_plain_lines(in_terminal, more):
    shown = in_terminal(**more)
    assert not SEQUENCES.search(shown)
    assert " ".join(shown.decode().split()) == (
        "fold 1 (2 of 3) epoch 1/4 training MAE 5.50 px held-out MAE 6.66 px, NME 7.77 % 89 faces/s 0 min left"
    )


def test_a_pipe_has_plain_lines_even_if_colours_are_forced():
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "FORCE_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", FOLDS], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("fold 1 (2 of 3)  epoch 1/4")
    assert done.stdout.count("\n") == 1
