"""What W&B is shown of an experiment, read back from the offline runs of one that was trained, blended and submitted."""

import base64
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest

from foldmark.core.metrics import face_nme, region_nme
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.runs.run_folder import FoldFolder
from tests.commandline import RUN_COMMANDS, run_code
from tests.conftest import REPOSITORY
from tests.show.test_tracker import SOURCE, records

TINY = (
    "model.name=cnn model.head=flat crop.size=32 folds.count=2 train.epochs=2 train.batch=4 train.lr=1e-4 "
    "train.validate_every=1 model.channels=[8,16] model.hidden=32"
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, synthetic_root):
    """A folder in which a small experiment "a" was trained, ensembled and submitted, with W&B offline."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    options = ["--name", "a", "--device", "cpu", "--set", TINY, "--data-root", str(synthetic_root), "--notes", "a try"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": str(SOURCE)}
    done = run_code(folder, environment, RUN_COMMANDS, "train csv submit", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def runs(workplace) -> dict[str, list[dict]]:
    """The records of each run, by the run's name."""
    read = [records(folder) for folder in sorted((workplace / "wandb").glob("offline-run-*"))]
    return {of_kind(run, "run")[0]["display_name"]: run for run in read}


@pytest.fixture(scope="module")
def faces(synthetic_root):
    return read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


def of_kind(run: list[dict], kind: str) -> list[dict]:
    return [record[kind] for record in run if record["type"] == kind]


def summary(run: list[dict]) -> dict:
    merged = {}
    for part in of_kind(run, "summary"):
        merged |= part["update"]
    return merged


def table(workplace: Path, run: list[dict], key: str) -> pandas.DataFrame:
    """The table as its artifact has it; the run's own copy leaves the pictures out."""
    files = [file for artifact in of_kind(run, "artifact") for file in artifact["manifest"]["contents"]]
    (path,) = [file["local_path"] for file in files if file["path"] == f"{key}.table.json"]
    stored = json.loads((workplace / path).read_text())
    return pandas.DataFrame(stored["data"], columns=stored["columns"])


def test_runs_stand_in_their_experiments_group_by_job_with_tags_and_notes(runs):
    jobs = {name: of_kind(run, "run")[0] for name, run in runs.items()}
    assert {name: run["job_type"] for name, run in jobs.items()} == {
        "a-fold0": "train",
        "a-fold1": "train",
        "a-ensemble": "ensemble",
        "a-submit": "submit",
    }
    for run in jobs.values():
        assert (run["run_group"], run["notes"]) == ("a", "a try")
        assert run["tags"] == ["ibug", "synthetic faces", "cnn", "flat head"]
    assert len({run["run_id"] for run in jobs.values()}) == 4


def test_each_epoch_shows_what_metrics_csv_says_and_the_same_twelve_faces(runs, workplace):
    metrics = pandas.read_csv(workplace / "runs" / "a" / "fold0" / "metrics.csv")
    history = [record["item"] for record in of_kind(runs["a-fold0"], "history") if "train/epoch" in record["item"]]
    assert [row["_step"] for row in history] == [1, 2]
    shown = {"curves/held_out_nme": "nme", "curves/held_out_mae_px": "mae_px", "curves/loss": "loss"}
    shown |= {"curves/train_mae_px": "train_mae_px", "train/epoch": "epoch", "train/lr": "lr", "train/mse": "train_mse"}
    shown |= {"machine/faces_per_second": "faces_per_second", "machine/memory_mb": "memory_mb"}
    for key, column in shown.items():
        np.testing.assert_allclose([row[key] for row in history], metrics[column], err_msg=key)
    assert (metrics["memory_mb"] > 100).all()
    captions = [row["held_out_faces.captions"] for row in history]
    assert len(captions[0]) == 12
    assert captions[0] == captions[1]


def test_the_charts_worth_a_look_come_first_by_name_as_the_dashboard_sorts_them(runs):
    first = {"a-fold0": ["curves/held_out_mae_px", "curves/held_out_nme", "curves/loss", "curves/train_mae_px"]}
    first |= {"a-ensemble": ["error_curve/faces_percent", "error_curve/nme_percent"]}
    for name, keys in first.items():
        items = [record["item"] for record in of_kind(runs[name], "history")]
        charts = sorted({key for item in items for key, value in item.items() if isinstance(value, float) and key[0] != "_"})
        assert charts[: len(keys)] == keys


def test_the_table_has_every_held_out_face_once_the_worst_first_with_its_worst_region(runs, workplace, faces):
    rows, prediction = FoldFolder(workplace / "runs/a/fold0").read_oof(faces)
    points_px = prediction.points_px
    held_out = faces.take(rows)
    shown = table(workplace, runs["a-fold0"], "oof_faces")
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
    assert len(table(workplace, runs["a-ensemble"], "oof_faces")) == len(faces)


def test_the_ensemble_shows_its_error_curve_regions_and_reliability(runs, workplace):
    run = runs["a-ensemble"]
    nme = table(workplace, run, "oof_faces")["NME %"].to_numpy()
    curve = table(workplace, run, "oof_cumulative_error_table").to_numpy()
    for limit, share in curve[::10]:
        assert share == pytest.approx(100 * (nme <= limit).mean(), abs=100 / len(nme))
    regions = table(workplace, run, "oof_error_per_region_table").set_index("region")["NME %"]
    assert set(regions.index) >= {"jaw", "nose", "left eye"}
    assert regions["jaw"] == pytest.approx(summary(run)["region/jaw"])
    (folder,) = (workplace / "wandb").glob("offline-run-*-ensemble-a-*")
    drawn = folder / "files" / summary(run)["oof_reliability.path"]
    assert drawn.read_bytes() == (workplace / "submissions" / "a-reliability.png").read_bytes()


def test_the_figures_to_sort_by_are_those_of_the_run_folder(runs, workplace):
    stored = json.loads((workplace / "runs" / "a" / "fold1" / "summary.json").read_text())
    shown = summary(runs["a-fold1"])
    for key in ("mae_px", "nme", "mse"):
        assert shown[f"oof_{key}"] == pytest.approx(stored[key])
    assert shown["parameters"] == stored["parameters"] > 1000
    assert shown["seconds"] == stored["seconds"]
    nme = table(workplace, runs["a-fold1"], "oof_faces")["NME %"]
    assert shown["oof_failure_rate"] == pytest.approx(100 * (nme > 8).mean())
    record = json.loads((workplace / "submissions" / "a.json").read_text())
    assert summary(runs["a-ensemble"])["oof_nme"] == pytest.approx(record["oof"]["nme"])
    assert summary(runs["a-submit"])["uploaded"] is False


def test_checkpoints_are_artifacts_without_a_copy_and_the_file_says_which_it_was_made_from(runs, workplace):
    checkpoints = []
    for fold in (0, 1):
        (model,) = [artifact for artifact in of_kind(runs[f"a-fold{fold}"], "artifact") if artifact["type"] == "model"]
        file, *more = sorted(model["manifest"]["contents"], key=lambda file: file["path"] != "last.pt")
        assert {one["path"] for one in more} == {"config.yaml", "split.csv"}
        content = (workplace / "runs" / "a" / f"fold{fold}" / "last.pt").read_bytes()
        assert (model["name"], file["local_path"]) == (f"a-fold{fold}", f"runs/a/fold{fold}/last.pt")
        assert file["digest"] == base64.b64encode(hashlib.md5(content).digest()).decode()
        assert json.loads(model["metadata"])["sha256"] == hashlib.sha256(content).hexdigest()
        checkpoints.append((file["local_path"], hashlib.sha256(content).hexdigest(), 1.0))
    versions = []
    for name in ("a-ensemble", "a-submit"):
        (made,) = [artifact for artifact in of_kind(runs[name], "artifact") if artifact["type"] == "submission"]
        assert [Path(file["path"]).name for file in made["manifest"]["contents"]] == ["a.csv", "a.json"]
        nets = json.loads(made["metadata"])["made_from"]
        assert [(net["checkpoint"], net["sha256"], net["weight"]) for net in nets] == checkpoints
        versions.append(made["digest"])
    # By which W&B sees that what was submitted is what the ensemble made, and that it was made of the folds' models.
    assert versions[0] == versions[1]
    used = {
        name: [artifact["name"] for artifact in of_kind(runs[name], "artifact") if artifact.get("use_after_commit")]
        for name in runs
    }
    assert used == {
        "a-fold0": [],
        "a-fold1": [],
        "a-ensemble": ["a-fold0", "a-fold1"],
        "a-submit": ["competition-file"],
    }
