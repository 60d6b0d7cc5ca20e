"""W&B's own client against the service of these tests: processes of a user, and what must have arrived of a fold."""

import json
import os
import subprocess
from pathlib import Path

from foldmark.report.wandb import KEYS, collect_epoch_values
from foldmark.runs.fold_folder import FoldFolder
from tests.commandline import RUN_COMMANDS, SOURCE, run_code
from tests.wandb_service import Run, Service

EPOCH = KEYS["epoch"]
TINY = (
    "model.name=cnn model.head=flat crop.size=32 folds.count=2 train.epochs=2 train.batch=8 train.lr=1e-4 "
    "model.channels=[8,16] model.hidden=32 train.checkpoint_seconds=0 train.validate_share=1"
)
NOTES = 'it\'s "a" `try`\nsecond line \N{GRINNING FACE}'


def client(folder: Path, service: Service, code: str, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as a user of the service, in a process of its own."""
    return run_code(folder, make_environment(folder, service, **changes), code, *arguments)


def make_environment(folder: Path, service: Service, **changes: str) -> dict[str, str]:
    """The environment variables of a user of the service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "FOLDMARK_"))}
    return kept | {"PYTHONPATH": str(SOURCE), "HOME": str(folder)} | service.environment | changes


def sync(folder: Path, service: Service, **changes: str) -> subprocess.CompletedProcess[str]:
    return client(folder, service, RUN_COMMANDS, "sync", **changes)


def rows_of(run: Run) -> list[dict]:
    """The lines of a run's history that are epochs."""
    return [line for line in run.history if EPOCH in line]


def assert_whole(run: Run, fold: Path) -> None:
    """Each epoch of the fold's metrics.csv arrived once, in order, with the same figures; and a finished fold's summary."""
    folder = FoldFolder(fold)
    expected = [collect_epoch_values(row) for row in folder.read_epochs()]
    got = rows_of(run)
    assert [row[EPOCH] for row in got] == [row[EPOCH] for row in expected]
    assert [row["_step"] for row in got] == [row[EPOCH] for row in expected]
    for one, other in zip(got, expected, strict=True):
        assert {key: one[key] for key in other} == other
    if folder.finished:
        assert run.summary["oof_nme"] == folder.require_summary()["nme"]
        assert run.summary[EPOCH] == len(expected)
        assert (run.ended, run.exit_code) == (True, 0)


def list_shown_faces(run: Run) -> list[dict]:
    """The sheets of faces in a run's history, all pictures of which arrived."""
    shown = [line["held_out_faces"] for line in run.history if "held_out_faces" in line]
    assert all(run.files[name].startswith(b"\x89PNG") for sheet in shown for name in sheet["filenames"])
    return shown


def read_summary(fold: Path) -> dict:
    return json.loads((fold / "summary.json").read_text())
