"""A small search with a planted optimum, run once for the tests here; without Optuna they are skipped."""

import shutil
from pathlib import Path

import pytest

from tests.commandline import run_in_process
from tests.conftest import REPOSITORY

# A net of a second that starts from zero instead of from the mean face: `train.mean_face: true` is the planted optimum.
TINY = (
    "model.name=cnn model.head=pool model.channels=[8,16] crop.size=32 augment.realign=0 predict.realign=0 folds.count=3 "
    "train.epochs=3 train.batch=8 train.lr=1e-4 train.mean_face=false train.checkpoint_seconds=0"
)
PLANTED = """
base: synthetic
folds: [0]
final_folds: [1]
trials: 6
seed: 3
keys:
  train.lr: {low: 1.0e-5, high: 1.0e-3, log: true}
  train.batch: {low: 4, high: 12}
  train.mean_face: [true, false]
"""


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="Optuna is not installed: make .venv/tune-installed does that")


@pytest.fixture
def write_search(workplace):
    """Write a search file of the user's own; gives the options that name it."""

    def write(text: str = PLANTED) -> list[object]:
        path = workplace / "mine.yaml"
        path.write_text(text)
        return ["--search", path]

    return write


@pytest.fixture(scope="package")
def options(synthetic_root) -> list[object]:
    return ["--data-root", synthetic_root, "--device", "cpu", "--set", TINY, "--name", "s"]


@pytest.fixture(scope="package")
def undisturbed(options, tmp_path_factory) -> tuple[Path, str]:
    """A folder in which the search "s" of PLANTED has ended, and what it said; to be copied, not changed."""
    pytest.importorskip("optuna", reason="Optuna is not installed: make .venv/tune-installed does that")
    folder = tmp_path_factory.mktemp("searched")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    (folder / "mine.yaml").write_text(PLANTED)
    done = run_in_process(folder, "tune", *options, "--search", folder / "mine.yaml")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def searched(undisturbed, workplace) -> Path:
    """A copy of that search's folder in the workplace."""
    return Path(shutil.copytree(undisturbed[0] / "runs/s", workplace / "runs/s"))
