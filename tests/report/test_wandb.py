"""What W&B's service has of an experiment that was trained and submitted offline and then uploaded, and of runs online."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from foldmark.core.errors import UserError
from foldmark.core.metrics import face_nme, region_nme
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.runs.fold_folder import FoldFolder
from foldmark.show.tracker import RunInfo, start
from foldmark.show.wandb_file import read_records
from tests.commandline import RUN_COMMANDS
from tests.conftest import REPOSITORY
from tests.wandb_client import NOTES, TINY, assert_whole, client, list_shown_faces, read_summary, sync
from tests.wandb_service import Artifact, Run, serving


@pytest.fixture(scope="module")
def service():
    with serving() as one:
        yield one


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, service, synthetic_root) -> Path:
    """A folder in which a small experiment "a" was trained, ensembled and submitted with W&B offline, and then uploaded."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    done = client(folder, service, RUN_COMMANDS, "train csv submit", *list_options("a", synthetic_root))
    assert (done.returncode, done.stderr) == (0, "")
    done = sync(folder, service)
    assert (done.returncode, "uploaded: 4 runs" in done.stdout) == (0, True), done.stderr
    return folder


def list_options(name: str, root: Path, more: str = "") -> list[object]:
    options = ["--name", name, "--device", "cpu", "--data-root", root, "--notes", NOTES]
    return [*options, "--set", f"{TINY} train.validate_every=1 {more}"]


@pytest.fixture(scope="module")
def runs(workplace, service) -> dict[str, Run]:
    return {run.name: run for run in service.runs.values() if run.about["groupName"] == "a"}


@pytest.fixture(scope="module")
def faces(synthetic_root):
    return read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


def read_table(run: Run, key: str) -> pandas.DataFrame:
    """The table as its artifact has it; the run's own copy leaves the pictures out."""
    (stored,) = [one.files[f"{key}.table.json"] for one in run.made if f"{key}.table.json" in one.files]
    content = json.loads(stored)
    return pandas.DataFrame(content["data"], columns=content["columns"])


def list_made(run: Run, kind: str) -> list[Artifact]:
    return [one for one in run.made if one.type == kind]


def test_runs_arrive_in_their_group_by_job_with_names_tags_notes_and_config(runs):
    jobs = {"a-fold0": "train", "a-fold1": "train", "a-ensemble": "ensemble", "a-submit": "submit"}
    assert {name: run.about["jobType"] for name, run in runs.items()} == jobs
    for run in runs.values():
        assert run.about["notes"] == NOTES
        assert run.about["tags"] == ["ibug", "synthetic faces", "cnn", "flat head"]
        assert (run.ended, run.exit_code) == (True, 0)
    assert runs["a-fold1"].config["fold"] == 1
    assert runs["a-fold1"].config["train"]["epochs"] == 2
    # The fold comes first, where lists cut ids off.
    assert [runs[f"a-fold{fold}"].id.split("-")[0] for fold in (0, 1)] == ["f0", "f1"]


def test_each_epoch_shows_what_metrics_csv_says_and_the_same_twelve_faces(runs, workplace):
    for fold in (0, 1):
        run = runs[f"a-fold{fold}"]
        assert_whole(run, workplace / f"runs/a/fold{fold}")
        first, last = list_shown_faces(run)
        assert len(first["captions"]) == len(first["filenames"]) == 12
        assert first["captions"] == last["captions"]
    metrics = pandas.read_csv(workplace / "runs/a/fold0/metrics.csv")
    shown = {"curves/held_out_nme": "nme", "curves/held_out_mae_px": "mae_px", "curves/loss": "loss"}
    shown |= {"curves/train_mae_px": "train_mae_px", "train/epoch": "epoch", "train/lr": "lr", "train/mse": "train_mse"}
    shown |= {"machine/faces_per_second": "faces_per_second", "machine/memory_mb": "memory_mb"}
    for key, column in shown.items():
        np.testing.assert_allclose([line[key] for line in runs["a-fold0"].history[:2]], metrics[column], err_msg=key)
    assert (metrics["memory_mb"] > 100).all()


def test_the_charts_worth_a_look_come_first_by_name_as_the_dashboard_sorts_them(runs):
    first = {"a-fold0": ["curves/held_out_mae_px", "curves/held_out_nme", "curves/loss", "curves/train_mae_px"]}
    first |= {"a-ensemble": ["error_curve/faces_percent", "error_curve/nme_percent"]}
    for name, keys in first.items():
        charts = {key for line in runs[name].history for key, value in line.items() if isinstance(value, float) and key[0] != "_"}
        assert sorted(charts)[: len(keys)] == keys


def test_the_table_has_every_held_out_face_once_the_worst_first_with_its_worst_region(runs, workplace, faces):
    rows, prediction = FoldFolder(workplace / "runs/a/fold0").read_oof(faces)
    points_px = prediction.points_px
    held_out = faces.take(rows)
    shown = read_table(runs["a-fold0"], "oof_faces")
    assert sorted(shown["picture"]) == sorted(held_out.pictures)
    assert shown["NME %"].is_monotonic_decreasing
    for _, row in shown.iterrows():
        index = held_out.pictures.index(row["picture"])
        one = held_out.take(np.array([index]))
        assert row["NME %"] == pytest.approx(face_nme(points_px[[index]], one)[0], abs=1e-3)
        assert row["MAE px"] == pytest.approx(np.abs(points_px[index] - one.points_px[0]).mean(), abs=1e-3)
        regions = region_nme(points_px[[index]], one)
        assert row["worst region"] == max(regions, key=regions.get)
        assert row["source"] == row["picture"].split("/")[0]
        assert (row["face"]["_type"], row["face"]["format"]) == ("image-file", "jpg")
    assert len(read_table(runs["a-ensemble"], "oof_faces")) == len(faces)


def test_the_ensemble_shows_its_error_curve_regions_and_reliability(runs, workplace):
    run = runs["a-ensemble"]
    nme = read_table(run, "oof_faces")["NME %"].to_numpy()
    curve = read_table(run, "oof_cumulative_error_table")
    for limit, share in curve.to_numpy()[::10]:
        assert share == pytest.approx(100 * (nme <= limit).mean(), abs=100 / len(nme))
    assert [line["error_curve/faces_percent"] for line in run.history if "error_curve/faces_percent" in line] == list(
        curve["faces %"]
    )
    regions = read_table(run, "oof_error_per_region_table").set_index("region")["NME %"]
    assert set(regions.index) >= {"jaw", "nose", "left eye"}
    assert regions["jaw"] == pytest.approx(run.summary["region/jaw"])
    (name,) = [name for name in run.files if "oof_reliability" in name]
    assert run.files[name] == (workplace / "submissions/a-reliability.png").read_bytes()


def test_the_figures_to_sort_by_are_those_of_the_run_folder(runs, workplace):
    stored, shown = read_summary(workplace / "runs/a/fold1"), runs["a-fold1"].summary
    for key in ("mae_px", "nme", "mse"):
        assert shown[f"oof_{key}"] == pytest.approx(stored[key])
    assert shown["parameters"] == stored["parameters"] > 1000
    assert shown["seconds"] == stored["seconds"]
    nme = read_table(runs["a-fold1"], "oof_faces")["NME %"]
    assert shown["oof_failure_rate"] == pytest.approx(100 * (nme > 8).mean())
    record = json.loads((workplace / "submissions/a.json").read_text())
    assert runs["a-ensemble"].summary["oof_nme"] == pytest.approx(record["oof"]["nme"])
    assert runs["a-submit"].summary["uploaded"] is False


def assert_lineage(runs: dict[str, Run], workplace: Path, files: int) -> None:
    """From the submission to the models that its file was made from: of each model one version, which its fold made, and of the
    file so many."""
    models = [model for fold in (0, 1) for model in list_made(runs[f"a-fold{fold}"], "model")]
    checkpoints = []
    for fold, model in enumerate(models):
        path = f"runs/a/fold{fold}/last.pt"
        content = (workplace / path).read_bytes()
        assert (model.name, model.version, model.committed, model.aliases) == (f"a-fold{fold}", 0, True, {"latest"})
        assert set(model.files) == {"last.pt", "config.yaml", "split.csv"}
        assert model.files["last.pt"] == content
        assert model.metadata["nme"] == read_summary(workplace / f"runs/a/fold{fold}")["nme"]
        assert model.metadata["sha256"] == hashlib.sha256(content).hexdigest()
        checkpoints.append((path, model.metadata["sha256"], 1.0))
    made = list_made(runs["a-ensemble"], "submission")
    assert [file.version for file in made] == list(range(files))
    file = made[-1]
    assert (file.committed, file.aliases) == (True, {"latest", "a", "best"})
    assert {name: content == (workplace / "submissions" / name).read_bytes() for name, content in file.files.items()} == {
        "a.csv": True,
        "a.json": True,
    }
    assert [(net["checkpoint"], net["sha256"], net["weight"]) for net in file.metadata["made_from"]] == checkpoints
    used = {name: sorted(run.used, key=lambda one: one.name) for name, run in runs.items()}
    assert used == {"a-fold0": [], "a-fold1": [], "a-ensemble": models, "a-submit": made}


def test_checkpoints_are_artifacts_and_the_lineage_is_whole_offline_and_online(service, runs, workplace, synthetic_root):
    assert all(one.committed for run in runs.values() for one in run.made)
    assert_lineage(runs, workplace, files=1)
    (workplace / "submissions/a.csv").unlink()
    options = [*list_options("a", synthetic_root), "--wandb", "online"]
    done = client(workplace, service, RUN_COMMANDS, "csv submit", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"W&B shows a-ensemble at {service.url}/somebody/foldmark/runs/ensemble-a-" in done.stdout
    assert_lineage(runs, workplace, files=2)
    # Nothing of it is left to upload.
    before = len(service.requests)
    done = sync(workplace, service)
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True), done.stderr
    assert not [request for request in service.requests[before:] if "file_stream" in request]


def test_checkpoints_are_not_copied_until_they_are_uploaded(workplace):
    (file,) = (workplace / "wandb").glob("offline-run-*-f0-a-*/run-*.wandb")
    (model,) = [one.artifact for one in read_records(file) if one.HasField("artifact") and one.artifact.type == "model"]
    assert "runs/a/fold0/last.pt" in [entry.local_path for entry in model.manifest.contents]


@pytest.fixture(scope="module")
def private(service, workplace, synthetic_root, tmp_path_factory) -> Path:
    """A folder in which "private" was trained online, without pictures and with alerts, from the models that "a" has in W&B."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    more = f"train.epochs=1 train.start=wandb:a:v0 folds.file={workplace}/runs/a/split.csv"
    options = [*list_options("private", synthetic_root, more), "--folds", "1", "--wandb", "online"]
    done = client(folder, service, RUN_COMMANDS, "train", *options, WANDB_PICTURES="0", WANDB_ALERTS="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 folds from W&B" in done.stdout
    return folder


def test_a_model_starts_from_an_artifact(workplace, private):
    for fold in (0, 1):
        fetched = private / f"cache/starts/a-v0/fold{fold}/last.pt"
        assert fetched.read_bytes() == (workplace / f"runs/a/fold{fold}/last.pt").read_bytes()


def test_a_finished_fold_alerts_who_asks_for_it(service, runs, private):
    (alert,) = service.run("private-fold1").alerts
    assert alert["title"] == "private-fold1 is finished"
    assert "NME" in alert["text"]
    assert not runs["a-fold0"].alerts


def test_pictures_stay_here_where_the_user_says_so(service, private, monkeypatch):
    run = service.run("private-fold1")
    assert_whole(run, private / "runs/private/fold1")
    files = [*run.files, *(name for one in run.made for name in one.files)]
    assert not [name for name in files if name.endswith((".png", ".jpg"))]
    assert "face" not in read_table(run, "oof_faces")
    monkeypatch.setenv("WANDB_PICTURES", "no")
    with pytest.raises(UserError, match="WANDB_PICTURES=no: is 0 or 1"):
        start(RunInfo("e", "n", "train", {}, private))


FETCH = """
from foldmark.commands.wandb_runs import *
for name in sys.argv[1:]:
    try:
        fetch_source(Places(Path(".")), "train.start", f"wandb:{name}")
    except UserError as error:
        print(error)
"""


def test_an_artifact_that_was_changed_or_is_not_there_is_refused(service, workplace, tmp_path):
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
