"""What a competition file was made from: recorded beside it, and rebuilt from that record."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foldmark.commands import pipeline
from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256
from foldmark.core.metrics import METRICS
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.data.twins import find_twins, join_twins
from foldmark.ensemble.ensemble import read_experiment_oof
from foldmark.runs.experiment import experiment
from foldmark.submission.format import FORMATS
from foldmark.submission.rebuild import verify
from foldmark.submission.record import read_provenance
from tests.commandline import run_process

KAGGLE = FORMATS["ibug"]
CSV, RECORD = Path("submissions/a.csv"), Path("submissions/a.json")


@pytest.fixture
def work(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the folder of a finished run and its file, to change, and to be in."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def data(synthetic_root, work):
    return experiment(synthetic_root, None, "a", [])[2]


def test_the_record_names_all_that_the_file_was_made_from(work, synthetic_root):
    record = json.loads(RECORD.read_text())
    assert record["csv"] == "a.csv"
    assert record["sha256"] == file_sha256(CSV)
    assert record["faces"] == 8
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
    oof = read_experiment_oof(Path("runs/a"))
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True).take(oof.rows)
    joined_px = join_twins(oof.points_px, faces, find_twins(faces))
    assert record["oof"]["mae_px"] == pytest.approx(METRICS["mae_px"].score(joined_px, faces))
    ledger = Path("submissions/ledger.csv").read_text().splitlines()
    assert len(ledger) == 2
    assert ledger[1].startswith(f"a.csv,{record['sha256'][:12]},{record['made']},a,0 1,8,")


def test_verify_rebuilds_the_file_to_the_last_byte_in_a_new_process(work, synthetic_root):
    # Kept predictions must not be believed: these are wrong.
    for kept in Path("runs").rglob("test.npz"):
        with np.load(kept) as content:
            wrong = {**content, "points_px": content["points_px"] + 1}
        np.savez(kept, **wrong)
    done = run_process(work, "verify", CSV, "--data-root", synthetic_root, "--device", "cpu")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "identical to the last byte" in done.stdout
    assert "2 of a; 8 faces" in done.stdout


def test_verify_says_how_far_off_which_face_is(work, data):
    points_px, _ = KAGGLE.read(CSV, data.test)
    points_px[5, 30, 1] += 0.25
    points_px[2, 3, 0] -= 0.125
    CSV.write_text(KAGGLE.text(points_px, data.test))
    with pytest.raises(UserError) as refusal:
        verify(CSV, data, "cpu")
    message = str(refusal.value)
    assert "0.2500 px off" in message
    assert f"y of point 30 of {data.test.pictures[5]} (face 6 of 8, Ids 680 to 815)" in message
    assert "2 of 1,088 values differ" in message
    assert "changed since it was made" in message


def test_verify_says_that_only_the_characters_differ_or_rows_are_lost(work, data):
    text = CSV.read_text()
    CSV.write_bytes(text.replace("\n", "\r\n").encode())
    with pytest.raises(UserError, match="in other characters"):
        verify(CSV, data, "cpu")
    CSV.write_text(text[:-500])
    with pytest.raises(UserError, match=r"nor a complete file: .* of 1,088 rows"):
        verify(CSV, data, "cpu")


def test_verify_names_every_checkpoint_that_changed_or_is_missing(work, data):
    Path("runs/a/fold0/last.pt").unlink()
    changed = Path("runs/a/fold1/last.pt")
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match=r"runs/a/fold0/last\.pt is missing, runs/a/fold1/last\.pt has changed"):
        verify(CSV, data, "cpu")


def test_verify_refuses_another_test_list(work, synthetic_root, tmp_path):
    root = Path(shutil.copytree(synthetic_root, tmp_path / "other"))
    xml = root / IBUG_FOLDER / TEST_XML
    xml.write_text(xml.read_text().replace("left='", "left='1", 1))
    with pytest.raises(UserError, match="another test list"):
        verify(CSV, experiment(root, None, "a", [])[2], "cpu")


def test_a_missing_or_damaged_record_is_a_sentence(work):
    record = RECORD.read_text()
    for damaged in (record[:-40], "{}", "", record.replace('"experiments"', '"experiment"')):
        RECORD.write_text(damaged)
        with pytest.raises(UserError, match=r"a\.json: damaged .*make csv"):
            read_provenance(CSV)
    RECORD.unlink()
    with pytest.raises(UserError, match=r"a\.json: no such record.*make csv"):
        read_provenance(CSV)
    CSV.unlink()
    with pytest.raises(UserError, match=r"a\.csv: no such file"):
        read_provenance(CSV)


KILLED = """
import os, signal, sys
from pathlib import Path
from foldmark.data.ibug import read_ibug
from foldmark.submission.record import read_provenance
from foldmark.core.config import CropConfig
from foldmark.submission.format import FORMATS
faces = read_ibug(Path(sys.argv[1]), with_points=False)
points_px, _ = FORMATS["ibug"].read(Path("submissions/a.csv"), faces)
place = sys.argv[2]
class Dying(type(Path())):
    def replace(self, target):
        done = super().replace(target) if place == "after" else None
        os.kill(os.getpid(), signal.SIGKILL)
FORMATS["ibug"].write(Dying("submissions/a.csv"), points_px + 0.5, faces, CropConfig())
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is there on POSIX only")
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_kill_at_the_renaming_leaves_no_csv_beside_a_foreign_record(place, work, synthetic_root):
    before = CSV.read_bytes()
    xml = synthetic_root / IBUG_FOLDER / TEST_XML
    done = subprocess.run([sys.executable, "-c", KILLED, xml, place], cwd=work, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (CSV.read_bytes() == before) == (place == "before")
    assert not RECORD.exists() or json.loads(RECORD.read_text())["sha256"] == file_sha256(CSV)


def test_a_refused_file_leaves_the_old_one_with_its_record_and_row(work, data):
    kept = {path: path.read_bytes() for path in Path("submissions").iterdir()}
    with pytest.raises(UserError):
        KAGGLE.write(CSV, np.zeros((8, 68, 2)), data.test, CropConfig())
    assert {path: path.read_bytes() for path in Path("submissions").iterdir()} == kept


def test_a_damaged_ledger_is_told_before_anything_is_predicted(work, data):
    Path("submissions/ledger.csv").write_text("spoilt")
    kept = {path: path.read_bytes() for path in Path("submissions").iterdir()}
    for file in Path("runs").rglob("test.npz"):
        file.unlink()
    with pytest.raises(UserError, match=r"ledger\.csv, line 1"):
        pipeline.make_csv("a", ["a"], data, [], "cpu", "disabled")
    assert not list(Path("runs").rglob("test.npz"))
    assert {path: path.read_bytes() for path in Path("submissions").iterdir()} == kept
