"""What arrives at W&B's service, by its own client: online, after kills, by `sync`, and with a service in trouble.

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

import pandas
import pytest

from foldmark.core.errors import UserError
from foldmark.core.metrics import region_nme
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.report.wandb import KEYS, collect_epoch_values
from foldmark.runs.run_folder import FoldFolder
from foldmark.show.tracker import RunInfo, start
from foldmark.show.wandb_file import read_records
from tests.commandline import COMMAND, RUN_COMMANDS, fork_process, run_code
from tests.conftest import REPOSITORY, assert_refused
from tests.wandb_service import Run, Service, Trouble, serving, wait_for

SOURCE = REPOSITORY / "src"
EPOCH = KEYS["epoch"]
KILLS = int(os.environ.get("FOLDMARK_KILLS", "0"))
EPOCHS = 60 if KILLS else 30  # of a training that is killed: W&B needs some seconds of it
TINY = (
    "model.name=cnn model.head=flat crop.size=32 folds.count=2 train.epochs=4 train.batch=8 train.lr=1e-4 "
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


@pytest.fixture(scope="session")
def service():
    with serving() as one:
        yield one


@pytest.fixture(scope="session")
def online(service, synthetic_root, tmp_path_factory) -> Path:
    """A folder in which a small experiment "a" was trained, ensembled and submitted online."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    options = ["--name", "a", "--device", "cpu", "--set", TINY, "--data-root", synthetic_root, "--notes", NOTES]
    done = client(folder, service, RUN_COMMANDS, "train csv submit", *options, "--wandb", "online", WANDB_ALERTS="1")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="session")
def runs(online, service) -> dict[str, Run]:
    return {run.name: run for run in service.runs.values() if run.about["groupName"] == "a"}


def read_table(run: Run, key: str) -> pandas.DataFrame:
    """The table as its artifact has it."""
    (stored,) = [one.files[f"{key}.table.json"] for one in run.made if f"{key}.table.json" in one.files]
    content = json.loads(stored)
    return pandas.DataFrame(content["data"], columns=content["columns"])


def test_runs_arrive_in_their_group_by_job_with_names_tags_notes_and_config(runs):
    jobs = {"a-fold0": "train", "a-fold1": "train", "a-ensemble": "ensemble", "a-submit": "submit"}
    assert {name: run.about["jobType"] for name, run in runs.items()} == jobs
    for run in runs.values():
        assert run.about["notes"] == NOTES
        assert run.about["tags"] == ["ibug", "synthetic faces", "cnn", "flat head"]
        assert (run.ended, run.exit_code) == (True, 0)
    assert runs["a-fold1"].config["fold"] == 1
    assert runs["a-fold1"].config["train"]["epochs"] == 4
    # The fold comes first, where lists cut ids off.
    assert [runs[f"a-fold{fold}"].id.split("-")[0] for fold in (0, 1)] == ["f0", "f1"]


def test_the_curves_are_those_of_metrics_csv_and_twelve_faces_have_their_names(runs, online, synthetic_root):
    for fold in (0, 1):
        run = runs[f"a-fold{fold}"]
        assert_whole(run, online / f"runs/a/fold{fold}")
        shown = [line["held_out_faces"] for line in run.history if "held_out_faces" in line]
        assert shown
        for faces in shown:
            assert len(faces["captions"]) == len(faces["filenames"]) == 12
            assert faces["captions"] == shown[0]["captions"]
            assert all(run.files[name].startswith(b"\x89PNG") for name in faces["filenames"])


def test_the_figures_tables_and_charts_arrive(runs, online, synthetic_root):
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    stored = json.loads((online / "runs/a/fold0/summary.json").read_text())
    run = runs["a-fold0"]
    assert (run.summary["oof_mae_px"], run.summary["seconds"]) == (stored["mae_px"], stored["seconds"])
    table = read_table(run, "oof_faces")
    assert table["NME %"].is_monotonic_decreasing
    rows, prediction = FoldFolder(online / "runs/a/fold0").read_oof(faces)
    points_px = prediction.points_px
    assert sorted(table["picture"]) == sorted(faces.pictures[row] for row in rows)
    run = runs["a-ensemble"]
    assert len(read_table(run, "oof_faces")) == len(faces)
    assert read_table(run, "oof_cumulative_error_table")["faces %"].is_monotonic_increasing
    regions = read_table(run, "oof_error_per_region_table").set_index("region")["NME %"]
    curve = [line["error_curve/faces_percent"] for line in run.history if "error_curve/faces_percent" in line]
    assert curve == list(read_table(run, "oof_cumulative_error_table")["faces %"])
    assert run.summary["region/jaw"] == pytest.approx(regions["jaw"])
    assert set(region_nme(points_px, faces.take(rows))) == set(regions.index)
    (name,) = [name for name in run.files if "oof_reliability" in name]
    assert run.files[name] == (online / "submissions/a-reliability.png").read_bytes()


def test_checkpoints_are_committed_and_the_lineage_is_whole(service, runs, online):
    folds = []
    for fold in (0, 1):
        (model,) = [one for one in runs[f"a-fold{fold}"].made if one.type == "model"]
        assert (model.name, model.version, model.committed, model.aliases) == (f"a-fold{fold}", 0, True, {"latest"})
        assert model.files["last.pt"] == (online / f"runs/a/fold{fold}/last.pt").read_bytes()
        stored = json.loads((online / f"runs/a/fold{fold}/summary.json").read_text())
        assert model.metadata["nme"] == stored["nme"]
        folds.append(model)
    ensemble, submit = runs["a-ensemble"], runs["a-submit"]
    assert ensemble.used == folds
    (file,) = [one for one in ensemble.made if one.type == "submission"]
    assert file.aliases == {"latest", "a", "best"}
    assert file.files["a.csv"] == (online / "submissions/a.csv").read_bytes()
    assert submit.used == [file]
    assert all(one.committed for run in runs.values() for one in run.made)


def test_a_finished_fold_alerts_who_asks_for_it(runs, online):
    (alert,) = runs["a-fold0"].alerts
    assert alert["title"] == "a-fold0 is finished"
    assert "NME" in alert["text"]


def test_an_online_run_that_arrived_is_not_sent_again(service, online):
    before = len(service.requests)
    done = sync(online, service)
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True), done.stderr
    assert not [request for request in service.requests[before:] if "file_stream" in request]


@pytest.fixture(scope="module")
def private(service, online, synthetic_root, tmp_path_factory) -> Path:
    """A folder in which "private" was trained online, without pictures, from the models that "a" has in W&B."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    start = f"train.epochs=1 train.start=wandb:a:v0 folds.file={online}/runs/a/split.csv"
    options = ["--name", "private", "--device", "cpu", "--folds", "1", "--data-root", synthetic_root, "--set", f"{TINY} {start}"]
    done = client(folder, service, RUN_COMMANDS, "train", *options, "--wandb", "online", WANDB_PICTURES="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 folds from W&B" in done.stdout
    return folder


def test_a_model_starts_from_an_artifact(online, private):
    for fold in (0, 1):
        fetched = private / f"cache/starts/a-v0/fold{fold}/last.pt"
        assert fetched.read_bytes() == (online / f"runs/a/fold{fold}/last.pt").read_bytes()


FETCH = """
from foldmark.commands.wandb_runs import *
for name in sys.argv[1:]:
    try:
        fetch_source(Places(Path(".")), "train.start", f"wandb:{name}")
    except UserError as error:
        print(error)
"""


def test_an_artifact_that_was_changed_or_is_not_there_is_refused(service, online, tmp_path):
    model = service.artifact("a-fold1", "v0")
    good = model.files["last.pt"]
    model.files["last.pt"] = good[:-1] + b"?"
    refused = {"a:v0": "not the checkpoint", "nothing": "no model", "no name": "write wandb:NAME"}
    done = client(tmp_path, service, FETCH, *refused)
    model.files["last.pt"] = good
    said = done.stdout.splitlines()
    assert len(said) == len(refused), done.stderr
    assert all(words in line for words, line in zip(refused.values(), said, strict=True)), said
    assert not list(tmp_path.glob("cache/starts/a-v0"))


def test_pictures_stay_here_where_the_user_says_so(service, private, monkeypatch):
    run = service.run("private-fold1")
    assert_whole(run, private / "runs/private/fold1")
    files = [*run.files, *(name for one in run.made for name in one.files)]
    assert not [name for name in files if name.endswith((".png", ".jpg"))]
    assert "face" not in read_table(run, "oof_faces")
    monkeypatch.setenv("WANDB_PICTURES", "no")
    with pytest.raises(UserError, match="WANDB_PICTURES=no: is 0 or 1"):
        start(RunInfo("e", "n", "train", {}, private))


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
from foldmark.report.wandb import KEYS, collect_epoch_values
from foldmark.runs.run_folder import FoldFolder
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
    seconds = [float(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(seconds) == 6
    assert max(seconds) < 25
    said = done.stderr.splitlines()
    assert len(said) == 6, done.stderr
    assert sum("going on without it" in line for line in said[:5]) == 5
    assert "e-fold5 stays offline" in said[5]
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
    assert sync(tmp_path, troubled).returncode == 0
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
    done = client(tmp_path, troubled, "from foldmark.cli import main; main()", "workspace")
    assert done.returncode == 0, done.stderr
    (view,) = troubled.views
    assert "oof_faces" in json.dumps(view)
