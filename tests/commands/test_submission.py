"""`make csv` and `make submit`: one file, made once, and the one that is uploaded."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from foldmark.commands import submission
from foldmark.core.errors import UserError
from foldmark.data.sets import find_data
from foldmark.runs.experiment import Session, Settings, make_experiment
from foldmark.runs.places import Places
from tests.commandline import run_in_process
from tests.conftest import QUICK, assert_refused
from tests.submission.test_kaggle import kaggle  # noqa: F401
from tests.submission.test_record import CSV, RECORD, work  # noqa: F401


@pytest.fixture
def run(work, synthetic_root):  # noqa: F811
    """Run `foldmark COMMAND` for the finished experiment a."""
    options = ("--data-root", synthetic_root, "--name", "a", "--device", "cpu")
    return lambda command, *more: run_in_process(work, command, *options, *(more or ("--set", QUICK)))


@pytest.fixture
def submit(work, synthetic_root, kaggle, tmp_path):  # noqa: F811
    """Submit experiment a as if its faces were real; gives what Kaggle's tool was handed, None for nothing."""
    kaggle("Successfully submitted\\n")
    places, settings = Places(work), Settings(None, "a", QUICK.split())
    experiment = make_experiment(places, settings, find_data(synthetic_root, "ibug"))
    experiment = replace(experiment, data=replace(experiment.data, synthetic=False))

    def submit(*overrides: str, **options: bool) -> bytes | None:
        uploaded = tmp_path / "uploaded"
        uploaded.unlink(missing_ok=True)
        changed = replace(experiment, overrides=[*experiment.overrides, *overrides])
        submission.submit(Session(places, "cpu", "disabled"), changed, "keypoints", **options)
        return uploaded.read_bytes() if uploaded.exists() else None

    return submit


def files_in_submissions() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path("submissions").iterdir() if path.suffix in (".csv", ".json", ".png")}


def edit() -> bytes:
    lines = CSV.read_text().splitlines()
    lines[8] = f"7,{float(lines[8].partition(',')[2]) + 1:.4f}"
    CSV.write_text("\n".join(lines) + "\n")
    return CSV.read_bytes()


def test_a_current_file_is_not_made_again(run):
    before = files_in_submissions()
    done = run("csv")
    assert done.returncode == 0, done.stderr
    assert "is current" in done.stdout
    assert "made:" not in done.stdout
    ledger = Path("submissions/ledger.csv")
    assert {**files_in_submissions(), ledger: 0} == {**before, ledger: 0}


def test_submit_and_csv_together_make_and_print_a_file_once(run):
    CSV.unlink()
    printed = "".join(run(command).stdout for command in ("submit", "csv"))
    assert printed.count("made: ") == len([line for line in printed.splitlines() if line.startswith("made: ")])
    assert len([line for line in printed.splitlines() if line.startswith("made: ") and "a.csv" in line]) == 1
    assert CSV.is_file()


def test_a_stale_file_is_made_again_and_the_reason_is_printed(run):
    before = CSV.read_bytes()
    done = run("csv", "--set", f"{QUICK} predict.twins=false")
    assert done.returncode == 0, done.stderr
    assert "predict.twins=True, and now predict.twins=False, so it is made again" in done.stdout
    assert CSV.read_bytes() != before
    run("csv")
    assert CSV.read_bytes() == before


@pytest.mark.parametrize("lost", ["submissions/a-look-first.csv", "submissions/a-reliability.png", "submissions/ledger.csv"])
def test_what_a_crash_left_out_is_made_up_for(lost, run):
    Path(lost).unlink()
    assert run("csv").returncode == 0
    assert Path(lost).is_file()
    assert "a.csv" in Path("submissions/ledger.csv").read_text()


def test_files_beside_a_csv_are_never_those_of_an_older_one(run, monkeypatch):
    listed = Path("submissions/a-look-first.csv")
    before = listed.read_bytes()
    for interrupted in ("save_csv", "note_submission"):
        CSV.unlink()
        listed.write_text("of older models\n")
        with monkeypatch.context() as patched:
            patched.setattr(submission, interrupted, Mock(side_effect=KeyboardInterrupt))
            assert run("csv").returncode
        assert run("csv").returncode == 0
        assert listed.read_bytes() == before


def test_points_in_another_order_are_no_competition_file(work, synthetic_root):  # noqa: F811
    order = ",".join(map(str, [*range(48), *range(60, 68), *range(48, 60)]))
    options = ("--data-root", synthetic_root, "--name", "order", "--device", "cpu", "--set", f"{QUICK} data.points=[{order}]")
    assert run_in_process(work, "train", *options).returncode == 0
    assert_refused(run_in_process(work, "csv", *options), "another order", "data.points")


def test_an_edited_file_is_neither_overwritten_nor_uploaded_unless_forced(run, submit, capsys):
    edited = edit()
    assert_refused(run("csv"), "a.csv", "edited after it was made", "move it away")
    assert_refused(run("submit"), "a.csv", "edited after it was made", "FORCE=1")
    with pytest.raises(UserError, match="edited after it was made"):
        submit()
    assert CSV.read_bytes() == edited
    assert submit(force=True) == edited
    assert "as it is, because FORCE is set" in capsys.readouterr().out
    assert CSV.read_bytes() == edited


@pytest.mark.parametrize("damage", [RECORD.unlink, partial(RECORD.write_text, "{}")])
def test_a_file_without_a_usable_record_is_neither_overwritten_nor_uploaded(damage, run, submit):
    kept = CSV.read_bytes()
    damage()
    assert_refused(run("csv"), "a.csv", "record", "move it away")
    with pytest.raises(UserError, match="record"):
        submit()
    assert CSV.read_bytes() == kept
    CSV.unlink()
    assert run("csv").returncode == 0
    assert CSV.read_bytes() == kept


def test_the_current_file_is_uploaded(submit):
    assert submit() == CSV.read_bytes()


def test_a_stale_file_is_made_again_before_it_is_uploaded(submit, capsys):
    before = CSV.read_bytes()
    uploaded = submit("predict.twins=false")
    assert uploaded == CSV.read_bytes() != before
    assert "so it is made again" in capsys.readouterr().out
    shutil.rmtree("runs/a/fold1")
    assert submit("predict.twins=false") == CSV.read_bytes() != uploaded
    assert "now 0 are finished" in capsys.readouterr().out


def test_a_damaged_ledger_is_told_before_anything_is_predicted(run):
    Path("submissions/ledger.csv").write_text("damaged")
    for file in Path("runs").rglob("test.npz"):
        file.unlink()
    CSV.unlink()
    assert_refused(run("csv"), "ledger.csv, line 1")
    assert not list(Path("runs").rglob("test.npz"))
    assert not CSV.exists()
