"""The W&B view, with W&B itself: what it shows, and that its troubles stay its own."""

import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from foldmark.commands.wandb_runs import dashboard, sync
from foldmark.core.errors import UserError
from foldmark.runs.experiment import Session
from foldmark.runs.places import Places
from foldmark.show.tracker import RunInfo, start
from foldmark.show.wandb_file import find_last_step, make_run, read_records, write_records
from tests.commandline import run_code, run_process
from tests.conftest import REPOSITORY, assert_refused

SOURCE = REPOSITORY / "src"


def make_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment variables of a user with no W&B settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return kept | {"HOME": str(folder / "home"), "PYTHONPATH": str(SOURCE)} | more


@pytest.fixture
def outside(tmp_path):
    """Run Python code as a process of its own in `tmp_path`, as a user with no W&B settings; gives the process."""

    def run(code: str, **more: str) -> subprocess.CompletedProcess:
        (tmp_path / "home").mkdir(exist_ok=True)
        return run_code(tmp_path, make_environment(tmp_path, **more), code)

    return run


@pytest.fixture
def fresh(tmp_path):
    """The same in a fresh Python, with packages that come before all others."""

    def run(code: str, *packages: Path, **more: str) -> subprocess.CompletedProcess:
        (tmp_path / "home").mkdir(exist_ok=True)
        environment = make_environment(tmp_path, **more)
        environment["PYTHONPATH"] = os.pathsep.join(map(str, [*packages, SOURCE]))
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)

    return run


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Path:
    """A folder in which a fold of two epochs was logged offline; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("logged")
    done = run_code(folder, make_environment(folder), FOLD.replace("EPOCHS", "(0, 1)"))
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture
def with_run(logged, tmp_path) -> Path:
    return shutil.copytree(logged, tmp_path, dirs_exist_ok=True)


FOLD = """
import sys
from pathlib import Path
import numpy as np
from foldmark.show.tracker import RunInfo, start
from foldmark.show.wandb_file import find_last_step, make_run, read_records, write_records
config = {"train": {"lr": 0.001, "epochs": 4}, "fold": 1}
about = {"notes": "a try", "tags": ["real faces", "cells head"]}
run = RunInfo("resnet18", "resnet18-fold1", "train", config, Path("runs/resnet18/fold1"), **about)
with start(run, "offline") as tracker:
    for epoch in EPOCHS:
        tracker.log({"val/nme": 10.0 - epoch}, epoch)
        pictures = [(np.full((30, 40, 3), 50 * i, np.uint8), f"face {i}") for i in range(3)]
        tracker.show(lambda wandb: {"held-out faces": [wandb.Image(face, caption=name) for face, name in pictures]}, epoch)
    tracker.summary({"oof_nme": 6.5})
"""
SYNC = "import sys; sys.argv = ['foldmark', 'sync']; from foldmark.cli import main; main()"


def records(run: Path) -> list[dict]:
    """What W&B's own reader finds in a run's file."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in printed.splitlines()]


def test_an_offline_run_reads_back_and_a_resumed_fold_is_the_same_run(outside, tmp_path):
    # A step that is logged again is dropped, and without a word.
    first = outside(FOLD.replace("EPOCHS", "(0, 1, 2, 1)"))
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    folder = tmp_path / "runs" / "resnet18" / "fold1"
    kept = json.loads((folder / "wandb.json").read_text())["id"]
    assert kept.startswith("f1-resnet18-")

    time.sleep(1)  # W&B's folders have the second in their names, in which a real process has not even imported torch
    # Epoch 2 again: it was logged, but its checkpoint was not yet written when the run was cut off.
    second = outside(FOLD.replace("EPOCHS", "(2, 3)"))
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert json.loads((folder / "wandb.json").read_text())["id"] == kept

    segments = sorted((tmp_path / "wandb").glob(f"offline-run-*-{kept}"))
    assert len(segments) == 2
    for segment, epochs in zip(segments, ([0, 1, 2], [2, 3]), strict=True):
        there = records(segment)
        run = next(record["run"] for record in there if record["type"] == "run")
        assert (run["project"], run["run_group"], run["job_type"]) == ("foldmark", "resnet18", "train")
        assert (run["run_id"], run["display_name"]) == (kept, "resnet18-fold1")
        assert (run["notes"], run["tags"]) == ("a try", ["real faces", "cells head"])
        assert run["config"]["update"]["train"] == {"lr": 0.001, "epochs": 4}
        history = [record["history"]["item"] for record in there if record["type"] == "history"]
        assert [(row["_step"], row["val/nme"]) for row in history] == [(epoch, 10.0 - epoch) for epoch in epochs]
        shown = {key.removeprefix("held-out faces."): value for key, value in history[-1].items() if key.startswith("held-out")}
        assert shown["captions"] == ["face 0", "face 1", "face 2"]
        assert all((segment / "files" / name).is_file() for name in shown["filenames"])
        updates = [record["summary"]["update"] for record in there if record["type"] == "summary"]
        assert any(update.get("oof_nme") == 6.5 for update in updates)


def test_a_run_is_kept_in_this_folder_and_tells_neither_host_nor_paths(outside, tmp_path):
    show = "    tracker.show(lambda wandb: {'faces': wandb.Table(columns=['x'], data=[[1]])})\n"
    named = "import socket; socket.gethostname = lambda: 'a-very-special-host'\n"
    done = outside(named + FOLD.replace("EPOCHS", "(0, 1)") + show)
    assert (done.returncode, done.stderr) == (0, "")
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    written = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file() and path.suffix != ".log"]
    assert any(path.suffix == ".wandb" for path in written)
    assert any("staging" in path.parts for path in written)
    for path in written:
        assert path.name not in ("wandb-metadata.json", "requirements.txt")
        assert b"a-very-special-host" not in path.read_bytes(), path
        assert sys.executable.encode() not in path.read_bytes(), path


def test_a_wandb_that_cannot_start_costs_one_warning(fresh, tmp_path):
    (tmp_path / "broken" / "wandb").mkdir(parents=True)
    (tmp_path / "broken" / "wandb" / "__init__.py").write_text("raise RuntimeError('torn installation')")
    done = fresh(FOLD.replace("EPOCHS", "(0, 1)") + "print('trained')", tmp_path / "broken")
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr.count("\n") == 1
    assert "torn installation" in done.stderr
    assert "metrics.csv" in done.stderr


@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps to find W&B's service process")
def test_a_service_that_dies_costs_one_warning_and_the_next_fold_has_a_new_one(outside, tmp_path):
    kill = """
        if epoch == 1:
            import os, signal, subprocess, time
            listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True).stdout
            rows = [line.split(None, 2) for line in listed.splitlines()]
            service = [int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and "wandb" in name]
            assert len(service) == 1, listed
            os.kill(service[0], signal.SIGKILL)
            time.sleep(0.3)
"""
    code = FOLD.replace("EPOCHS", "(0, 1, 2)").replace("    tracker.summary", f"{kill}    tracker.summary", 1)
    done = outside(code + FOLD.replace("EPOCHS", "(0, 1)").replace("fold1", "fold2") + "print('trained')")
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert done.stderr.count("\n") == 1
    assert "going on without it" in done.stderr
    (second,) = (tmp_path / "wandb").glob("offline-run-*-f2-resnet18-*")
    (file,) = second.glob("run-*.wandb")
    assert find_last_step(read_records(file)) == 1


def test_online_without_a_login_stays_offline_and_says_so(outside, tmp_path):
    done = outside(FOLD.replace("EPOCHS", "(0,)").replace('"offline"', '"online"'))
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "stays offline" in done.stderr
    assert "wandb login" in done.stderr
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_nothing_is_imported_or_written_when_disabled(fresh, tmp_path):
    check = "print('wandb' in sys.modules)"
    by_argument = fresh(FOLD.replace("EPOCHS", "(0,)").replace('"offline"', '"disabled"') + check)
    by_environment = fresh(FOLD.replace("EPOCHS", "(0,)") + check, WANDB_MODE="disabled")
    for done in (by_argument, by_environment):
        assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert not (tmp_path / "wandb").exists()


def test_an_unknown_mode_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "onlien")
    with pytest.raises(UserError, match="WANDB_MODE=onlien"):
        start(RunInfo("e", "n", "train", {}, tmp_path))


def test_a_dashboard_without_runs_or_terminal_says_so(tmp_path):
    with pytest.raises(UserError, match="make train"):
        dashboard(Session(Places(tmp_path)))
    run = tmp_path / "wandb" / "offline-run-20260101_000000-a" / "run-a.wandb"
    run.parent.mkdir(parents=True)
    run.touch()
    assert_refused(run_process(tmp_path, "dashboard"), "needs a terminal")


def test_the_dashboard_opens_with_the_latest_folds_writes_nothing_outside_and_ends_with_q(with_run):
    about = {"id": "submit-resnet18", "experiment": "resnet18", "name": "resnet18-submit", "job_type": "submit"}
    file = with_run / "wandb/offline-run-20990101_000000-submit-resnet18/run-submit-resnet18.wandb"
    file.parent.mkdir()
    write_records(file, make_run(about | {"config": {}, "notes": "", "tags": []}, "foldmark", 0))
    (with_run / "home").mkdir(exist_ok=True)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(with_run)
        environment = make_environment(with_run, TERM="xterm-256color", COLUMNS="150", LINES="40")
        code = "import sys; sys.argv[1:] = ['dashboard']; from foldmark.cli import main; main()"
        os.execve(sys.executable, [sys.executable, "-c", code], environment)
    shown, status, deadline = b"", None, time.monotonic() + 40
    while status is None and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            with suppress(OSError):  # how Linux tells that the other end is closed
                shown += os.read(terminal, 65536)
        if b"-f1-" in shown and b"val/nme" in shown:
            os.write(terminal, b"q")
        ended, code = os.waitpid(process, os.WNOHANG)
        status = code if ended else None
    os.close(terminal)
    assert status == 0
    assert b"20990101_000000-sub" in shown
    assert b"val/nme" in shown  # of the fold, though it is not the latest run
    assert not list((with_run / "home").rglob("*"))


def test_a_sync_without_runs_or_login_or_network_is_one_sentence(outside, with_run):
    with pytest.raises(UserError, match="make train"):
        sync(Session(Places(with_run / "home")))
    assert_refused(outside(SYNC), "not logged in", "wandb login")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        done = outside(SYNC, WANDB_API_KEY="0123456789" * 4, WANDB_BASE_URL=address)
    assert_refused(done, "network")
    assert time.monotonic() - began < 60


def test_an_uploaded_run_is_not_sent_again_and_a_growing_one_not_yet(outside, with_run):
    (run,) = (with_run / "wandb").glob("offline-run-*/run-*.wandb")
    run.with_name(f"{run.name}.synced").touch()  # as W&B marks it
    done = outside(SYNC)
    assert (done.returncode, done.stdout.count("nothing to do")) == (0, 1), done.stderr

    grows = (
        FOLD.replace("EPOCHS", "(0, 1)").replace("fold1", "fold2").replace("    tracker.summary", "    import os; os._exit(9)", 1)
    )
    assert outside(grows).returncode == 9
    done = outside(SYNC)
    assert done.returncode == 0, done.stderr
    assert "f2-resnet18" in done.stdout
    assert "still being written" in done.stdout


def test_damaged_files_in_the_runs_folder_are_no_finished_runs(outside, tmp_path):
    for name, make in (("a", os.mkfifo), ("b", Path.mkdir), ("c", lambda file: file.symlink_to(tmp_path / "nowhere"))):
        file = tmp_path / "wandb" / f"offline-run-20260101_000000-{name}" / f"run-{name}.wandb"
        file.parent.mkdir(parents=True)
        make(file)
    assert_refused(outside(SYNC), "no runs there yet")
    (file.parent / "run-d.wandb").write_bytes(b"\xff\x00{")
    done = outside(SYNC)
    assert done.returncode == 0, done.stderr
    assert "still being written" in done.stdout


def test_a_workspace_without_its_library_or_a_login_is_one_sentence(outside, fresh, tmp_path):
    command = SYNC.replace("'sync'", "'workspace'")
    if not find_spec("wandb_workspaces"):
        assert_refused(outside(command), "make workspace")
    (tmp_path / "there" / "wandb_workspaces").mkdir(parents=True)
    (tmp_path / "there" / "wandb_workspaces" / "__init__.py").touch()
    assert_refused(fresh(command, tmp_path / "there"), "not logged in")
    assert not list((tmp_path / "home").rglob("*"))


def test_the_workspace_shows_curves_with_a_band_all_faces_and_variants_side_by_side():
    pytest.importorskip("wandb_workspaces", reason="the extra `workspace` is not installed")
    from foldmark.commands.workspace import FIGURES, workspace

    page = workspace("somebody")
    curves, variants, faces, errors = (section.panels for section in page.sections)
    assert (page.entity, page.project) == ("somebody", "foldmark")
    assert {(panel.groupby, panel.groupby_aggfunc, panel.groupby_rangefunc) for panel in curves} == {("Group", "mean", "stddev")}
    assert ["curves/held_out_nme"] in [panel.y for panel in curves]
    assert [panel.metrics for panel in variants[: len(FIGURES)]] == [[key] for key in FIGURES]
    assert [panel.table_name for panel in faces[:1]] == ["oof_faces"]
    assert errors[2].media_keys == ["oof_reliability"]
    # What is sent when it is saved: W&B's own model of a page takes it.
    assert page._to_model().entity == "somebody"
