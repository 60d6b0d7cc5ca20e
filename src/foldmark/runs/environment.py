"""The environment of a result beside settings and data: versions, revision, machine."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ["foldmark", "torch", "torchvision", "numpy", "opencv-python-headless", "albumentations", "wandb"]


def describe_environment(root: Path, *, synthetic: bool) -> dict:
    """The content of a run folder's environment.json. root: of the project, whose git revision is noted. synthetic: whether the
    faces are synthetic."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: _version(package) for package in PACKAGES},
        "revision": _revision(root),
        "synthetic_faces": synthetic,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision(root: Path) -> str | None:
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
