"""The record of a competition file, and what it says of the file later."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foldmark.core.config import apply_overrides
from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256
from foldmark.core.metrics import METRICS
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.data.sets import Data, find_data
from foldmark.data.twins import find_twins, join_twins
from foldmark.ensemble.oof import read_oof
from foldmark.runs.places import Places
from foldmark.runs.run_folder import RunFolder
from foldmark.submission.format import FORMATS
from foldmark.submission.record import (
    CsvState,
    Origin,
    csv_state,
    describe_experiment,
    digest_pictures,
    read_provenance,
    save_csv,
)

KAGGLE = FORMATS["ibug"]
CSV, RECORD = Path("submissions/a.csv"), Path("submissions/a.json")


@pytest.fixture
def work(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the folder of a finished run and its file, to change, and to be in."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def data(synthetic_root) -> Data:
    return find_data(synthetic_root, "ibug")


def state_of(data: Data, *overrides: str, root: Path = Path(), weight: float = 1.0) -> CsvState:
    """The state of a.csv, if it would be made from run a with these settings now."""
    places = Places(root)
    folder = RunFolder(places.run("a"))
    config = apply_overrides(folder.read_config().model_dump(), list(overrides), "test")
    return csv_state(places.csv("a"), [describe_experiment(places, folder, config, weight)], data)


def origin() -> Origin:
    return Origin(**{key: value for key, value in json.loads(RECORD.read_text()).items() if key in Origin.model_fields})


def test_the_record_names_all_that_the_file_was_made_from(work, synthetic_root):
    record = json.loads(RECORD.read_text())
    assert record["csv"] == "a.csv"
    assert record["sha256"] == file_sha256(CSV)
    assert record["faces"] == 8
    assert record["threads"] >= 1
    assert {"revision", "versions", "python", "synthetic_faces"} <= set(record["environment"])
    (part,) = record["experiments"]
    assert part["name"] == "a"
    assert part["config"]["crop"]["size"] == [32, 32]
    assert [fold["fold"] for fold in part["folds"]] == [0, 1]
    for fold in part["folds"]:
        assert fold["checkpoint"] == f"runs/a/fold{fold['fold']}/last.pt"
        assert fold["sha256"] == file_sha256(Path(fold["checkpoint"]))
        summary = json.loads(Path(f"runs/a/fold{fold['fold']}/summary.json").read_text())
        assert fold["oof"] == {key: summary[key] for key in ("faces", "mae_px", "nme")}
    # The figure is of what the file is made of: mirror twins are joined in it.
    oof = read_oof(RunFolder(work / "runs/a"), read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True))
    joined_px = join_twins(oof.points_px, oof.faces, find_twins(oof.faces))
    assert record["oof"]["mae_px"] == pytest.approx(METRICS["mae_px"].score(joined_px, oof.faces))
    ledger = Path("submissions/ledger.csv").read_text().splitlines()
    assert len(ledger) == 2
    assert ledger[1].startswith(f"a.csv,{record['sha256'][:12]},{record['made']},a,0 1,8,")


def test_a_missing_or_damaged_record_is_a_sentence(work, data):
    record = RECORD.read_text()
    for damaged in (record[:-40], "{}", "", record.replace('"experiments"', '"experiment"')):
        RECORD.write_text(damaged)
        with pytest.raises(UserError, match=r"a\.json: damaged .*make csv"):
            read_provenance(CSV)
        assert state_of(data).edited
    RECORD.unlink()
    with pytest.raises(UserError, match=r"a\.json: no such record.*make csv"):
        read_provenance(CSV)
    assert state_of(data).edited
    CSV.unlink()
    with pytest.raises(UserError, match=r"a\.csv: no such file"):
        read_provenance(CSV)
    assert state_of(data) == CsvState()


def test_a_file_is_current_where_it_would_be_made_the_same_way(work, data):
    assert state_of(data).current
    # These do not change what is predicted.
    assert state_of(data, "predict.batch=3", "train.workers=1", "data.skip_damaged=true").current
    # Weights are fitted again, and differ in their last digits.
    assert state_of(data, weight=1 - 1e-9).current


def test_a_file_is_current_in_a_copy_of_the_project_and_from_another_working_directory(work, data, tmp_path, monkeypatch):
    moved = work.rename(tmp_path / "moved project")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert state_of(data, root=moved).current


STALE = {
    "another test-time setting": (["predict.twins=false"], "predict.twins=True, and now predict.twins=False"),
    "more test-time augmentation": (["predict.shift=0.05"], "predict.shift=0.0, and now predict.shift=0.05"),
}


@pytest.mark.parametrize("name", STALE)
def test_a_file_of_other_settings_is_stale(name, work, data):
    overrides, words = STALE[name]
    state = state_of(data, *overrides)
    assert words in state.reason
    assert not state.current
    assert not state.edited


def test_a_file_of_other_folds_checkpoints_or_weights_is_stale(work, data):
    assert "weight 1.0000 of a, and now 0.4000" in state_of(data, weight=0.4).reason
    checkpoint = Path("runs/a/fold1/last.pt")
    checkpoint.write_bytes(checkpoint.read_bytes() + b"\0")
    assert "before fold 1 of a was trained again" in state_of(data).reason
    Path("runs/a/fold1/summary.json").unlink()
    assert "from folds 0 1 of a, and now 0 are finished" in state_of(data).reason


def test_a_file_of_other_experiments_is_stale(work, data):
    places = Places(work)
    folder = RunFolder(Path(shutil.copytree("runs/a", "runs/b")))
    parts = [describe_experiment(places, RunFolder(places.run(name)), folder.read_config(), 0.5) for name in "ab"]
    assert "was made from a, and now from a + b" in csv_state(places.csv("a"), parts, data).reason


def test_a_file_of_another_test_list_or_other_test_pictures_is_stale(work, data_root):
    data = find_data(data_root, "ibug")
    picture = data.test.path(3)
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert "test pictures" in state_of(data).reason
    xml = data_root / IBUG_FOLDER / TEST_XML
    xml.write_text(xml.read_text().replace("left='", "left='1", 1))
    assert "another test list" in state_of(find_data(data_root, "ibug")).reason


def test_a_file_in_another_format_is_stale(work, data, monkeypatch):
    monkeypatch.setitem(FORMATS, "ibug", replace(KAGGLE, decimals=2))
    assert "another format" in state_of(data).reason


def test_an_edited_file_is_not_taken_for_ours(work, data):
    CSV.write_text(CSV.read_text().replace("1,", "1,1", 1))
    state = state_of(data)
    assert state.edited
    assert "edited after it was made" in state.reason


def test_a_refused_file_leaves_the_old_one_with_its_record_and_row(work, data):
    kept = {path: path.read_bytes() for path in Path("submissions").iterdir()}
    with pytest.raises(UserError, match="box sides"):
        save_csv(CSV, np.zeros((8, 68, 2)) + data.test.boxes_px[:, None, :2] + 30, origin(), data)
    assert {path: path.read_bytes() for path in Path("submissions").iterdir()} == kept


KILLED = """
import os, signal, sys
from pathlib import Path
import foldmark.core.files as files
from foldmark.data.sets import find_data
from foldmark.submission.format import FORMATS
from foldmark.submission.record import Origin, read_provenance, save_csv
data = find_data(Path(sys.argv[1]), "ibug")
points_px, _ = FORMATS["ibug"].read(Path("submissions/a.csv"), data.test)
origin = Origin(**read_provenance(Path("submissions/a.csv")).model_dump(include=set(Origin.model_fields)))
place, suffix = sys.argv[2].split()
replace = Path.replace
def dying(path, target):
    if Path(target).suffix == suffix:
        if place == "after":
            replace(path, target)
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
Path.replace = dying
save_csv(Path("submissions/a.csv"), points_px + 0.5, origin, data)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is there on POSIX only")
@pytest.mark.parametrize("place", ["before .json", "after .json", "before .csv", "after .csv"])
def test_a_kill_leaves_a_file_that_is_known_to_be_current_or_stale(place, work, synthetic_root, data):
    before = CSV.read_bytes()
    command = [sys.executable, "-c", KILLED, synthetic_root, place]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (CSV.read_bytes() == before) == (place != "after .csv")
    state = state_of(data)
    assert not state.edited
    assert state.current == (place in ("before .json", "after .csv"))
    # Made again, it is whole.
    points_px, _ = KAGGLE.read(CSV, data.test)
    save_csv(CSV, points_px, origin(), data)
    assert state_of(data).current


def test_two_files_saved_at_once_leave_one_with_its_record(work, synthetic_root, data):
    code = KILLED.partition("place, suffix")[0]
    code += 'save_csv(Path("submissions/a.csv"), points_px + float(sys.argv[2]), origin, data)'
    processes = [
        subprocess.Popen([sys.executable, "-c", code, synthetic_root, shift], cwd=work) for shift in ("0.25", "0.5", "0.75")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert state_of(data).current
    assert json.loads(RECORD.read_text())["sha256"] == file_sha256(CSV)


def test_test_pictures_that_are_missing_have_a_digest(data_root):
    faces = find_data(data_root, "ibug").test
    before = digest_pictures(faces)
    faces.path(0).unlink()
    assert digest_pictures(faces) != before
