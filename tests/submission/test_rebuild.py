"""A competition file rebuilt from its record: identical, the same to a tolerance, or another one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML
from foldmark.data.sets import Data, find_data
from foldmark.runs.experiment import Session
from foldmark.runs.places import Places
from foldmark.submission.rebuild import TOLERANCE_PX, verify
from tests.commandline import run_process
from tests.submission.test_record import CSV, KAGGLE, RECORD, data, work  # noqa: F401


def verify_here(data: Data) -> str:  # noqa: F811
    return verify(CSV, data, Session(Places(Path()), "cpu"))


def shift_point(data: Data, by_px: float) -> None:  # noqa: F811
    points_px, _ = KAGGLE.read(CSV, data.test)
    points_px[5, 30, 1] += by_px
    CSV.write_text(KAGGLE.text(points_px, data.test))


def rebind(**changes: object) -> None:
    """Write the record of the CSV as it is now, as if it had been made so elsewhere."""
    record = json.loads(RECORD.read_text()) | {"sha256": file_sha256(CSV)} | changes
    RECORD.write_text(json.dumps(record))


def test_verify_rebuilds_the_file_to_the_last_byte_in_a_new_process(work, synthetic_root):  # noqa: F811
    # Kept predictions must not be believed: these are wrong.
    for kept in Path("runs").rglob("test.npz"):
        with np.load(kept) as content:
            wrong = {**content, "points_px": content["points_px"] + 1}
        np.savez(kept, **wrong)
    done = run_process(work, "verify", CSV, "--data-root", synthetic_root, "--device", "cpu")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "identical to the last byte" in done.stdout
    assert "2 of a; 8 faces" in done.stdout


def test_a_project_moved_elsewhere_is_verified_from_another_working_directory(work, data, tmp_path, monkeypatch):  # noqa: F811
    moved = work.rename(tmp_path / "moved project")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "identical" in verify(moved / CSV, data, Session(Places(moved), "cpu"))


def test_what_another_machine_made_is_the_same_to_a_tolerance_with_the_reason(work, data):  # noqa: F811
    shift_point(data, 0.0135)
    environment = json.loads(RECORD.read_text())["environment"]
    environment["versions"]["torch"] = "1.0"
    rebind(threads=64, environment=environment)
    sentence = verify_here(data)
    assert f"the same to {TOLERANCE_PX} px" in sentence
    assert "up to 0.0135 px off" in sentence
    assert f"y of point 30 of {data.test.pictures[5]}" in sentence
    assert "1 of 1,088 values differ" in sentence
    assert "threads 64 (now " in sentence
    assert "torch 1.0 (now " in sentence
    # A record of before threads were noted.
    rebind(threads=None)
    assert "the same to" in verify_here(data)


def test_what_is_farther_off_than_the_tolerance_is_refused(work, data):  # noqa: F811
    shift_point(data, TOLERANCE_PX + 0.001)
    rebind(threads=64)
    with pytest.raises(UserError, match=r"0\.0510 px off.*threads 64"):
        verify_here(data)


def test_verify_says_how_far_off_which_face_is(work, data):  # noqa: F811
    points_px, _ = KAGGLE.read(CSV, data.test)
    points_px[5, 30, 1] += 0.25
    points_px[2, 3, 0] -= 0.125
    CSV.write_text(KAGGLE.text(points_px, data.test))
    with pytest.raises(UserError) as refusal:
        verify_here(data)
    message = str(refusal.value)
    assert "0.2500 px off" in message
    assert f"y of point 30 of {data.test.pictures[5]} (face 6 of 8, Ids 680 to 815)" in message
    assert "2 of 1,088 values differ" in message
    assert "changed since it was made" in message


def test_an_edited_file_is_refused_even_within_the_tolerance(work, data):  # noqa: F811
    shift_point(data, 0.001)
    with pytest.raises(UserError, match="changed since it was made"):
        verify_here(data)


def test_verify_says_that_only_the_characters_differ_or_rows_are_lost(work, data):  # noqa: F811
    text = CSV.read_text()
    CSV.write_bytes(text.replace("\n", "\r\n").encode())
    with pytest.raises(UserError, match="in other characters"):
        verify_here(data)
    CSV.write_text(text[:-500])
    with pytest.raises(UserError, match=r"nor a complete file: .* of 1,088 rows"):
        verify_here(data)


def test_verify_names_every_checkpoint_that_changed_or_is_missing(work, data):  # noqa: F811
    Path("runs/a/fold0/last.pt").unlink()
    changed = Path("runs/a/fold1/last.pt")
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match=r"runs/a/fold0/last\.pt is missing, .*runs/a/fold1/last\.pt has changed"):
        verify_here(data)


def test_verify_refuses_another_test_list(work, synthetic_root, tmp_path):  # noqa: F811
    root = Path(shutil.copytree(synthetic_root, tmp_path / "other"))
    xml = root / IBUG_FOLDER / TEST_XML
    xml.write_text(xml.read_text().replace("left='", "left='1", 1))
    with pytest.raises(UserError, match="another test list"):
        verify_here(find_data(root, "ibug"))
