"""Shared by the tests of the exported files and of the page."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commandline import run_in_process
from tests.conftest import QUICK


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
