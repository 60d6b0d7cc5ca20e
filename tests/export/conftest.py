"""Shared by the tests of the exported files and of the page."""

import shutil
import subprocess
from pathlib import Path

import pytest

from foldmark.data.sets import find_data
from foldmark.ensemble.fit import read_fit
from foldmark.export import web_runtime
from foldmark.export.source import Source
from foldmark.runs.places import Places
from foldmark.runs.run import open_run
from foldmark.runs.run_folder import RunFolder
from tests.browser import CHROMIUM
from tests.commandline import run_in_process
from tests.conftest import QUICK, REPOSITORY


@pytest.fixture(scope="session")
def exported(finished, synthetic_root, tmp_path_factory) -> Path:
    """A folder with the quick run "a" and its exported files; to be copied, not changed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="make export installs onnx, onnxscript and onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(finished, folder, dirs_exist_ok=True, symlinks=True)
    done = export(folder, synthetic_root)
    assert done.returncode == 0, done.stderr
    return folder


def export(folder: Path, data_root: Path) -> subprocess.CompletedProcess[str]:
    return run_in_process(folder, "export", "--data-root", data_root, "--name", "a", "--set", QUICK)


# The aligner: of another place and share of the face than the net's crops, and cut twice as large; at a high rate, so that it
# does not give the mean face.
ALIGNER = f"{QUICK} crop.enlargement=1.2 crop.down=0.05 train.lr=1e-2 train.epochs=3 augment.realign=0 predict.realign=0"
ALIGNED = f"{QUICK} crop.size=64 crop.enlargement=1.0 model.aligner=first predict.realign=0"


@pytest.fixture(scope="session")
def aligned(synthetic_root, tmp_path_factory) -> Path:
    """A folder with fold 0 of "second", a run with the aligner "first", and its exported files; to be copied, not changed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="make export installs onnx, onnxscript and onnxruntime")
    folder = tmp_path_factory.mktemp("aligned")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for name, settings in (("first", ALIGNER), ("second", ALIGNED)):
        options = ["--data-root", synthetic_root, "--name", name, "--set", settings]
        done = run_in_process(folder, "train", *options, "--folds", "0", "--device", "cpu")
        assert done.returncode == 0, done.stderr
    done = export_aligned(folder, synthetic_root)
    assert done.returncode == 0, done.stderr
    return folder


def export_aligned(folder: Path, data_root: Path, command: str = "export") -> subprocess.CompletedProcess[str]:
    return run_in_process(folder, command, "--data-root", data_root, "--name", "second", "--set", ALIGNED)


def source_of(folder: Path, data_root: Path, name: str = "a") -> Source:
    """The net of a run's fold 0, as it is exported."""
    places, data = Places(folder), find_data(data_root, "ibug")
    kept = RunFolder(places.run(name))
    run = open_run(places, name, kept.read_config(), data)
    return Source(run, run.fold(0), read_fit(kept.ensemble_file).read_calibration())


def copy_runtime(folder: Path) -> None:
    """Put onnxruntime-web from the checkout's cache into that of a folder; without it npm brings it. Skips where there is
    neither, or no browser."""
    if not CHROMIUM:
        pytest.skip("no Chromium here to open the page in")
    kept = REPOSITORY / f"cache/{web_runtime.PACKAGE}-{web_runtime.VERSION}.tgz"
    if kept.is_file():
        shutil.copy(kept, folder / "cache")
    elif not shutil.which("npm"):
        pytest.skip("neither the cache nor npm has onnxruntime-web")
