"""A cluster of simulated machines for all tests here; without Ray they are skipped."""

import pytest

from tests.cluster.machines import Machines
from tests.commandline import fork_process, run_in_process
from tests.conftest import REPOSITORY

# A net of seconds, with states as often as the head takes them; a fold must not end before the other machine begins its own.
TINY = (
    "model.name=cnn model.head=flat crop.size=32 folds.count=2 train.epochs=180 train.batch=4 train.lr=1e-4 "
    "model.channels=[8,16] model.hidden=32 train.checkpoint_seconds=0 train.validate_share=1 train.validate_every=60"
)


@pytest.fixture(scope="package")
def machines(tmp_path_factory):
    """Two machines, m1 and m2; a test that takes one away puts it back."""
    pytest.importorskip("ray", reason="Ray is not installed: make .venv/cluster-installed does that")
    machines = Machines(tmp_path_factory.mktemp("machines"))
    for name in ("m1", "m2"):
        machines.add(name)
    yield machines
    machines.close()


@pytest.fixture(scope="package")
def whole(synthetic_root, tmp_path_factory):
    """The run folder of TINY, trained by the plain loop, with few checkpoints: they change no bit."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    settings = TINY.replace("checkpoint_seconds=0", "checkpoint_seconds=60")
    done = run_in_process(folder, "train", "--device", "cpu", "--name", "a", "--set", settings, "--data-root", synthetic_root)
    assert done.returncode == 0, done.stderr
    return folder / "runs/a"


@pytest.fixture
def start(machines, workplace, synthetic_root):
    """Start `foldmark train` on the machines; gives the process."""

    def start(*more: object, settings: str = TINY, name: str = "a"):
        options = ["--device", "cpu", "--cluster", machines.address, "--data-root", synthetic_root, "--name", name]
        return fork_process(workplace, workplace / "said.txt", "train", *options, "--set", settings, *more)

    return start


def assert_ends_well(process, workplace) -> str:
    process.join(600)
    said = (workplace / "said.txt").read_text()
    assert process.exitcode == 0, said
    return said


def count_epochs(workplace, fold: int) -> int:
    metrics = workplace / f"runs/a/fold{fold}/metrics.csv"
    return metrics.read_text().count("\n") - 1 if metrics.exists() else 0
