"""Shared by the tests: a small synthetic data set, the real one where it is, and Foldmark's command line."""

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

# Tests run side by side, and the nets in them are too small to share out: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

from foldmark.core.faces import Faces
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.synthetic.ibug import write_synthetic_faces
from tests.commandline import run_in_process, run_process

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("foldmark", deadline=None)
hypothesis.settings.load_profile("foldmark")

# A shell that starts the suite in the background has it ignore Ctrl-C, and the processes that the tests start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent


def pytest_xdist_auto_num_workers(config) -> int:
    """One worker more than cores, because many tests wait: for W&B's retries, for machines that are gone."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory) -> Path:
    """A data root with 24 synthetic faces and their twins to train on, 4 and their twins to predict."""
    root = tmp_path_factory.mktemp("data")
    write_synthetic_faces(root, train_faces=24, test_faces=4, seed=1)
    return root


@pytest.fixture
def data_root(synthetic_root, tmp_path) -> Path:
    """A copy of the synthetic set that a test may damage."""
    return Path(shutil.copytree(synthetic_root, tmp_path / "set"))


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The folder with the real data sets; they may not be in the repository, so a test without them skips."""
    root = os.environ.get("FOLDMARK_TEST_DATA")
    if not root:
        pytest.skip("FOLDMARK_TEST_DATA is not set: it names the folder that holds the real iBUG and IMM sets")
    assert (Path(root) / IBUG_FOLDER / TRAIN_XML).is_file(), f"FOLDMARK_TEST_DATA={root} holds no iBUG set"
    return Path(root)


@pytest.fixture(scope="session")
def real_faces(real_root) -> Faces:
    return read_ibug(real_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


@pytest.fixture
def workplace(tmp_path) -> Path:
    """An empty folder to work in, with the shipped configs."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    return folder


@pytest.fixture
def foldmark(workplace):
    """Run `foldmark ...` in the workplace, in this process; gives what a finished process would be."""
    return partial(run_in_process, workplace)


@pytest.fixture
def foldmark_process(workplace):
    """Run `foldmark ...` in the workplace as a process of its own; gives the finished process."""
    return partial(run_process, workplace)


# A run of a second: a small net, small crops, one epoch, two folds; at a low rate, so that three steps cannot throw it far off.
QUICK = (
    "model.name=cnn model.head=pool model.channels=[8,16] model.hidden=32 crop.size=32 "
    "train.epochs=1 train.batch=8 train.lr=1e-4 folds.count=2"
)


@pytest.fixture
def quick() -> str:
    return QUICK


@pytest.fixture(scope="session")
def finished(synthetic_root, tmp_path_factory) -> Path:
    """A folder in which the quick run "a" was trained and its competition file made; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for command in ("train", "csv"):
        options = ["--data-root", synthetic_root, "--name", "a", "--set", QUICK, "--device", "cpu"]
        done = run_in_process(folder, command, *options)
        assert done.returncode == 0, done.stderr
    return folder


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """The user is told in one line what is wrong, with exit code 2 and no traceback."""
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("foldmark: ")]
    assert len(message) == 1, done.stderr
    for word in words:
        assert word in message[0], message[0]
