"""What arrives at W&B's service after kills, by `sync`, and with a service in trouble.

FOLDMARK_KILLS=30 kills that often, in the middle of training or of an upload; `make soak` does.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from foldmark.runs.fold_folder import FoldFolder
from foldmark.show.wandb_file import read_records
from tests.commandline import COMMAND, fork_process
from tests.conftest import REPOSITORY, assert_refused
from tests.wandb_client import EPOCH, NOTES, TINY, assert_whole, client, make_environment, rows_of, sync
from tests.wandb_service import Run, Service, Trouble, serving, wait_for

KILLS = int(os.environ.get("FOLDMARK_KILLS", "0"))
EPOCHS = 60 if KILLS else 30  # of a training that is killed: W&B needs some seconds of it


@pytest.fixture(scope="module")
def service():
    with serving() as one:
        yield one


class Training:
    """The training of fold 0 of an experiment, in pieces."""

    def __init__(self, folder: Path, service: Service, data: Path, name: str) -> None:
        self.folder, self.service, self.name = folder, service, name
        self.fold = folder / f"runs/{name}/fold0"
        self.options = ["--name", name, "--device", "cpu", "--folds", "0", "--data-root", data]
        self.options += ["--set", f"{TINY} train.epochs={EPOCHS}"]
        self.pieces = 0

    def go_on(self, mode: str, until: Callable[[], bool] | None = None) -> bool:
        """Train online or offline, to the end or to where it is so, when it is killed; whether it came to the end."""
        self.pieces += 1
        changes = self.service.environment | {"WANDB_MODE": mode, "HOME": str(self.folder)}
        process = fork_process(self.folder, self.folder / "said.txt", "train", *self.options, **changes)
        while until and process.is_alive() and not until():
            time.sleep(0.01)
        if until:
            process.kill()
        process.join(200)
        assert process.exitcode in (0, -signal.SIGKILL), (self.folder / "said.txt").read_text()
        return process.exitcode == 0

    def has(self, epochs: int) -> bool:
        return len(FoldFolder(self.fold).read_epochs()) >= epochs

    def recorded(self) -> int:
        """How many pieces W&B has begun to write to this disk; one that is killed in its first second leaves nothing."""
        files = (file for file in self.folder.glob("wandb/*run-*/run-*.wandb") if self.name in file.name)
        return sum(any(record.HasField("run") for record in read_records(file)) for file in files if file.stat().st_size)

    def can_be_killed(self, epochs: int) -> bool:
        """Whether so many epochs are done, and W&B has begun to write this piece."""
        return self.has(epochs) and self.recorded() == self.pieces

    @property
    def run(self) -> Run:
        return self.service.run(f"{self.name}-fold0")


@pytest.fixture
def workplace(tmp_path) -> Path:
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    return tmp_path


def test_pieces_killed_online_and_offline_and_in_an_upload_are_one_whole_run(service, workplace, synthetic_root):
    training = Training(workplace, service, synthetic_root, "killed")
    training.go_on("online", lambda: training.can_be_killed(2))
    training.go_on("offline", lambda: training.can_be_killed(5))
    # Killed when the service has a part of it.
    service.troubles = [Trouble("hang", "PUT .*media")]
    upload = start_sync(workplace, service)
    wait_for(lambda: rows_of(training.run)[-1:] and rows_of(training.run)[-1][EPOCH] >= 5)
    os.killpg(upload.pid, signal.SIGKILL)
    upload.wait()
    service.troubles = []
    assert training.go_on("offline")
    done = sync(workplace, service)
    assert done.returncode == 0, done.stderr
    assert_whole(training.run, training.fold)
    assert [one.committed for one in training.run.made if one.type == "model"] == [True]
    assert training.run.summary["oof_faces"]["_type"] == "table-file"
    assert training.run.summary["oof_faces"]["path"] in training.run.files
    assert "nothing to do" in sync(workplace, service).stdout


def start_sync(folder: Path, service: Service) -> subprocess.Popen:
    quiet, environment = subprocess.DEVNULL, make_environment(folder, service)
    return subprocess.Popen([*COMMAND, "sync"], cwd=folder, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)


@pytest.mark.skipif(not KILLS, reason="FOLDMARK_KILLS is not set")
def test_after_random_kills_every_synced_run_is_whole(service, workplace, synthetic_root):
    seed = random.randrange(10**6)
    chance, experiments = random.Random(seed), 0
    kills = {"online": 0, "offline": 0, "upload": 0}
    while sum(kills.values()) < KILLS:
        training = Training(workplace, service, synthetic_root, f"soak{experiments}")
        experiments += 1
        finished = False
        while not finished:
            mode, epochs, later = chance.choice(["online", "offline"]), chance.randint(1, EPOCHS), chance.choice([0, 0.3, 1, 3])
            done = training.has(epochs)

            def is_time(epochs: int = epochs, later: float = later, training: Training = training) -> bool:
                if training.has(epochs):
                    time.sleep(later)
                return training.has(epochs)

            finished = training.go_on(mode, None if done or sum(kills.values()) >= KILLS else is_time)
            kills[mode] += not finished
            if chance.random() < 0.3:
                upload = start_sync(workplace, service)
                time.sleep(chance.uniform(0.5, 6))
                with suppress(ProcessLookupError):
                    os.killpg(upload.pid, signal.SIGKILL)
                    kills["upload"] += upload.wait() != 0
            done = sync(workplace, service)
            story = f"seed {seed}, {training.name}, after {kills}: {done.stderr}"
            assert done.returncode == 0, story
            if training.has(1):
                assert_whole(training.run, training.fold)
    print(f"seed {seed}: {experiments} runs whole after kills of {kills}")


FIGURES = {"faces": 4, "mae_px": 2.5, "nme": 3.25, "seconds": 60.0, "parameters": 1000}
# Some folds' worth of what training tells W&B, without training.
FOLDS = """
import sys, time
from pathlib import Path
import foldmark.show.tracker as tracker
from foldmark.report.wandb import collect_epoch_values
from foldmark.runs.fold_folder import FoldFolder
tracker.NETWORK_LIMIT = tracker.CALL_LIMIT = 4
tracker.UPLOAD_LIMIT, tracker.FINISH_LIMIT = 6, 3
name, *modes = sys.argv[1:]
for number, mode in enumerate(modes):
    fold, began = FoldFolder(Path(f"runs/{name}/fold{number}")), time.monotonic()
    with tracker.start(tracker.RunInfo(name, f"{name}-fold{number}", "train", {}, fold.path), mode) as run:
        for row in fold.read_epochs():
            run.log(collect_epoch_values(row), row["epoch"])
        run.summary({"oof_nme": 5.0})
    print(number, time.monotonic() - began)
"""


def write_epochs(run: Path, folds: int, epochs: int = 3) -> None:
    """What the epochs of some folds leave, as far as W&B is concerned, and the lock of their training, which is no more."""
    for number in range(folds):
        (run / f"fold{number}").mkdir(parents=True)
        (run / f"fold{number}/.lock").touch()
        rows = [f"{epoch},{1 / epoch},{10 / (epoch + number)}" for epoch in range(1, epochs + 1)]
        (run / f"fold{number}/metrics.csv").write_text("\n".join(["epoch,loss,nme", *rows, ""]))


@pytest.fixture
def troubled():
    """A service of its own, so that its troubles stay there."""
    with serving() as one:
        yield one


def test_a_service_in_trouble_costs_a_sentence_and_sync_mends_it_later(troubled, tmp_path):
    kinds = ["500", "429", "hang", "drop", "413"]
    write_epochs(tmp_path / "runs/e", len(kinds) + 1)
    stream = [Trouble(kind, f"f{fold}-e-.*file_stream") for fold, kind in enumerate(kinds)]
    troubled.troubles = [*stream, Trouble("500", "RunResumeStatus f5")]
    done = client(tmp_path, troubled, FOLDS, "e", *["online"] * 6)
    assert done.returncode == 0, done.stderr
    seconds = [float(line.split()[1]) for line in done.stdout.splitlines() if line[0].isdigit()]
    assert len(seconds) == 6
    assert max(seconds) < 25
    said = done.stderr.splitlines()
    assert len(said) == 6, done.stderr
    assert sum("going on without it" in line for line in said[:5]) == 5
    assert "e-fold5 stays offline" in said[5]
    # W&B's own upload would try for hours.
    troubled.troubles, began = [Trouble("500", "f0-e-.*file_stream")], time.monotonic()
    assert_refused(sync(tmp_path, troubled), "1 of 6 runs did not arrive, f0-e-")
    assert time.monotonic() - began < 90
    troubled.troubles = []
    done = sync(tmp_path, troubled)
    assert done.returncode == 0, done.stderr
    for fold in range(6):
        run = troubled.run(f"e-fold{fold}")
        assert_whole(run, tmp_path / f"runs/e/fold{fold}")
        assert (run.summary["oof_nme"], run.ended) == (5.0, True)


def test_answers_that_are_lost_and_a_service_that_comes_back_are_not_even_noticed(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 2)
    troubled.troubles = [Trouble("drop answer", "f0-e.*file_stream", 2), Trouble("503", "f1-e.*file_stream", 1)]
    code = FOLDS.replace("FINISH_LIMIT = 6", "FINISH_LIMIT = 40")
    done = client(tmp_path, troubled, code, "e", "online", "online")
    assert (done.returncode, done.stderr) == (0, "")
    for fold in (0, 1):
        assert_whole(troubled.run(f"e-fold{fold}"), tmp_path / f"runs/e/fold{fold}")
    assert "nothing to do" in sync(tmp_path, troubled).stdout


def test_a_key_revoked_in_the_middle_of_a_run_is_said_by_training_and_by_sync(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 2)
    keys = set(troubled.keys)
    troubled.troubles = [Trouble("revoke", "file_stream", 1)]
    done = client(tmp_path, troubled, FOLDS, "e", "online", "online")
    assert (done.returncode, done.stderr.count("\n")) == (0, 2), done.stderr
    during, after = done.stderr.splitlines()
    assert "going on without it" in during
    assert "e-fold1 stays offline" in after
    assert_refused(sync(tmp_path, troubled), "login does not work")
    troubled.keys = keys
    done = sync(tmp_path, troubled)
    assert done.returncode == 0, done.stderr
    for fold in (0, 1):
        assert_whole(troubled.run(f"e-fold{fold}"), tmp_path / f"runs/e/fold{fold}")


# What W&B's client sends as files: a picture and an artifact.
FILES = """        run.show(lambda wandb: {"face": wandb.Image(np.zeros((8, 8, 3), np.uint8))})
        (fold.path / "last.pt").write_text(fold.path.name)
        run.artifact(tracker.Artifact(fold.path.name, "model", [fold.path / "last.pt"], {}))
"""


def test_files_that_wandbs_client_has_given_up_are_said_and_sent_by_sync(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 2)
    troubled.troubles = [Trouble("404", "PUT .*f0-e.*media"), Trouble("404", "PUT .*artifact.*last.pt")]
    code = FOLDS.replace("import sys", "import sys, numpy as np").replace("        run.summary(", f"{FILES}        run.summary(")
    done = client(tmp_path, troubled, code, "e", "online", "online")
    assert (done.returncode, done.stderr.count("not all of it arrived"), done.stderr.count("\n")) == (0, 2, 2), done.stderr
    troubled.troubles = [Trouble("500", "PUT .*f0-e.*media"), Trouble("404", "PUT .*artifact.*last.pt")]
    assert_refused(sync(tmp_path, troubled), "2 of 2 runs did not arrive")
    troubled.troubles = []
    done = sync(tmp_path, troubled)
    assert done.returncode == 0, done.stderr
    for fold in (0, 1):
        run = troubled.run(f"e-fold{fold}")
        assert_whole(run, tmp_path / f"runs/e/fold{fold}")
        assert [name for name in run.files if "media/images" in name]
        assert troubled.artifact(f"fold{fold}").committed
    assert "nothing to do" in sync(tmp_path, troubled).stdout


# A disk of 64 KB under wandb/, which is full before 300 epochs are written; then one with room.
FULL_DISK = """
mkdir wandb && mount -t tmpfs -o size=64k tmpfs wandb || exit 77
"$0" -c "$1" e offline offline; code=$?
cp -r wandb kept && umount wandb && cp -r kept/. wandb
exit $code
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare to mount a small disk")
def test_a_full_disk_costs_a_sentence_and_sync_mends_it_later(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 2, epochs=300)
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, sys.executable, FOLDS]
    variables = make_environment(tmp_path, troubled)
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200)
    if not (tmp_path / "kept").is_dir():
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    assert (done.returncode, done.stderr.count("\n")) == (0, 2), done.stderr
    assert done.stderr.count("going on without it") == 2
    assert len(done.stdout.splitlines()) == 2
    done = sync(tmp_path, troubled)
    assert done.returncode == 0, done.stderr
    for fold in (0, 1):
        assert_whole(troubled.run(f"e-fold{fold}"), tmp_path / f"runs/e/fold{fold}")


def test_what_a_killed_process_had_not_given_to_wandb_comes_from_the_fold(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 1)
    code = FOLDS.replace("run.summary(", "time.sleep(2); import os; os._exit(9)  #").replace(
        "read_epochs():", "read_epochs()[:2]:"
    )
    assert client(tmp_path, troubled, code, "e", "offline").returncode == 9
    (tmp_path / "runs/e/fold0/summary.json").write_text(json.dumps(FIGURES))
    done = sync(tmp_path, troubled)
    assert (done.returncode, "uploaded: 1 run." in done.stdout) == (0, True), done.stderr
    assert_whole(troubled.run("e-fold0"), tmp_path / "runs/e/fold0")


def test_folds_that_wandb_never_wrote_are_sent_from_their_folders(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 2)
    for fold in (0, 1):
        about = {"experiment": "e", "name": f"e-fold{fold}", "job_type": "train", "config": {"fold": fold}}
        about |= {"id": f"f{fold}-e-012345", "notes": NOTES, "tags": ["ibug"]}
        (tmp_path / f"runs/e/fold{fold}/wandb.json").write_text(json.dumps(about))
    (tmp_path / "runs/e/fold1/summary.json").write_text(json.dumps(FIGURES))
    done = sync(tmp_path, troubled)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nothing of it in wandb") == 2
    for fold in (0, 1):
        run = troubled.run(f"e-fold{fold}")
        assert_whole(run, tmp_path / f"runs/e/fold{fold}")
        assert (run.id, run.config, run.exit_code) == (f"f{fold}-e-012345", {"fold": fold}, 1 - fold)
        assert (run.about["groupName"], run.about["jobType"]) == ("e", "train")
        assert (run.about["notes"], run.about["tags"]) == (NOTES, ["ibug"])
    assert "nothing to do" in sync(tmp_path, troubled).stdout


def test_a_fold_that_stops_alerts_who_asks_for_it_without_this_machines_paths(troubled, tmp_path):
    write_epochs(tmp_path / "runs/e", 1)
    stops = "from foldmark.core.errors import UserError; raise UserError(str(fold.path.absolute()) + ': the loss is nan')  #"
    done = client(tmp_path, troubled, FOLDS.replace("run.summary(", stops), "e", "online", WANDB_ALERTS="1")
    assert "UserError" in done.stderr
    run = troubled.run("e-fold0")
    (alert,) = run.alerts
    assert alert == {"title": "e-fold0 has stopped", "text": "runs/e/fold0: the loss is nan", "severity": "ERROR"}
    assert run.exit_code == 1


def test_the_workspace_is_saved_in_the_users_project(troubled, tmp_path):
    pytest.importorskip("wandb_workspaces", reason="the extra `workspace` is not installed")
    done = client(tmp_path, troubled, "from foldmark.cli import main; main()", "workspace", WANDB_ENTITY="team")
    assert done.returncode == 0, done.stderr
    (view,) = troubled.views
    assert "oof_faces" in json.dumps(view)
    assert view["entityName"] == "team"
