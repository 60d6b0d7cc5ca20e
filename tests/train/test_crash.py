"""A run that dies ends as one that did not: killed at any moment, or out of disk at any write.

FOLDMARK_KILLS=100 kills that often; `make soak` does.
"""

import csv
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commandline import fork_process
from tests.conftest import REPOSITORY, assert_refused

KILLS = int(os.environ.get("FOLDMARK_KILLS", "4"))
SEED = random.randrange(10**6)
# A net of seconds, with all that a run does: crop store, two folds, states, figures.
TINY = (
    "model.name=cnn model.head=flat crop.size=32 folds.count=2 train.epochs=8 train.batch=4 train.lr=1e-4 "
    "model.channels=[8,16] model.hidden=32 train.checkpoint_seconds=0 train.validate_share=1"
)
TRAIN = ["train", "--device", "cpu", "--name", "a", "--set", TINY, "--data-root"]


def start(workplace: Path, synthetic_root: Path) -> multiprocessing.process.BaseProcess:
    """Killed while it trains, and not while it loads torch."""
    return fork_process(workplace, workplace / "said.txt", *TRAIN, synthetic_root)


def assert_ends_well(process: multiprocessing.process.BaseProcess, workplace: Path, story: str = "") -> None:
    process.join(300)
    assert process.exitcode == 0, story + (workplace / "said.txt").read_text()


@pytest.fixture(scope="module")
def whole(synthetic_root, tmp_path_factory):
    """A run that nobody disturbed, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    process = start(folder, synthetic_root)
    began = time.monotonic()
    assert_ends_well(process, folder)
    return folder / "runs/a", time.monotonic() - began


def begin_again(workplace: Path, whole: Path) -> None:
    """An empty workplace, but for the measured way to compute: both runs must take the same."""
    shutil.rmtree(workplace / "runs", ignore_errors=True)
    shutil.rmtree(workplace / "cache", ignore_errors=True)
    (workplace / "runs/a").mkdir(parents=True)
    shutil.copy(whole / "speed-cpu.json", workplace / "runs/a")


def assert_same_bits(run: Path, whole: Path) -> None:
    for fold in ("fold0", "fold1"):
        assert without_times(run / fold / "metrics.csv") == without_times(whole / fold / "metrics.csv")
        with np.load(run / fold / "oof.npz") as one, np.load(whole / fold / "oof.npz") as other:
            assert all(np.array_equal(one[key], other[key]) for key in other)
        one, other = (torch.load(folder / fold / "last.pt", weights_only=True)["averaged"] for folder in (run, whole))
        assert all(torch.equal(one[key], other[key]) for key in other)
    assert (run / "split.csv").read_bytes() == (whole / "split.csv").read_bytes()
    assert not list(run.rglob("*.partial"))


def without_times(path: Path) -> list[dict]:
    rows = list(csv.DictReader(path.open()))
    measured = ("seconds", "faces_per_second", "memory_mb")
    return [{key: value for key, value in row.items() if key not in measured} for row in rows]


def test_killed_at_any_moment_it_ends_with_the_same_bits(workplace, synthetic_root, whole):
    folder, seconds = whole
    rng = random.Random(SEED)
    begin_again(workplace, folder)
    kills = 0
    while kills < KILLS:
        process = start(workplace, synthetic_root)
        process.join(rng.uniform(0.02, 1.1) * seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            continue
        assert_ends_well(process, workplace, f"seed {SEED}, after {kills} kills: ")
        assert_same_bits(workplace / "runs/a", folder)
        begin_again(workplace, folder)
    assert_ends_well(start(workplace, synthetic_root), workplace, f"seed {SEED}, after {kills} kills: ")
    assert_same_bits(workplace / "runs/a", folder)
    assert not list((workplace / "cache").rglob("*.partial"))


def test_out_of_disk_at_any_write_it_says_so_and_goes_on_with_the_same_bits(foldmark, workplace, synthetic_root, whole):
    folder, _ = whole
    begin_again(workplace, folder)
    runs = workplace / "runs"
    shutil.rmtree(runs)
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", runs], capture_output=True).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        (runs / "a").mkdir()
        shutil.copy(folder / "speed-cpu.json", runs / "a")
        needed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        refused = 0
        for share in (0.02, 0.1, 0.3, 0.6, 0.9):
            subprocess.run(["mount", "-o", f"remount,size={int(share * needed)}", runs], check=True)
            done = foldmark(*TRAIN, synthetic_root)
            assert done.returncode in (0, 2), done.stderr
            if done.returncode == 2:
                refused += 1
                assert_refused(done, "the disk is full")
        assert refused >= 3
        subprocess.run(["mount", "-o", f"remount,size={4 * needed}", runs], check=True)
        done = foldmark(*TRAIN, synthetic_root)
        assert done.returncode == 0, done.stderr
        assert_same_bits(runs / "a", folder)
    finally:
        subprocess.run(["umount", runs], check=True)
