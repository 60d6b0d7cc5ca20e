"""The ledger: a row for each competition file, and how out-of-fold figures foretell the leaderboard."""

import hashlib
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from foldmark.commands import csv_files
from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.runs.experiment import Session
from foldmark.runs.places import Places
from foldmark.submission.ledger import COLUMNS, note_score, note_submission, read_ledger
from foldmark.submission.record import ExperimentRecord, Figures, FoldRecord, Provenance
from tests.conftest import assert_refused

LEDGER = Path("submissions/ledger.csv")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def show_ledger():
    csv_files.show_ledger(Session(Places(Path.cwd())))


def note(name: str, content: str = "content", mae_px: float = 4.0, nme: float = 5.0):
    """Note a competition file as `make csv` does; its path."""
    path = LEDGER.with_name(f"{name}.csv")
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    oof = Figures(faces=48, mae_px=mae_px, nme=nme)
    folds = [FoldRecord(fold=fold, checkpoint=f"runs/{name}/fold{fold}/last.pt", sha256="", oof=oof) for fold in (0, 1)]
    record = Provenance(
        csv=path.name,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        made="2026-11-22T13:00:00+00:00",
        faces=8,
        test_list="",
        device="cpu",
        environment={},
        experiments=[ExperimentRecord(name=name, config=Config(), folds=folds)],
        oof=oof,
    )
    note_submission(path, record, LEDGER)
    return path


def test_a_row_holds_the_file_its_origin_and_its_figures():
    note("a", mae_px=3.66, nme=4.8)
    assert LEDGER.read_text().splitlines() == [
        ",".join(COLUMNS),
        f"a.csv,{hashlib.sha256(b'content').hexdigest()[:12]},2026-11-22T13:00:00+00:00,a,0 1,8,3.6600,4.8000,",
    ]


def test_the_same_file_again_replaces_its_row_and_keeps_the_score_only_of_the_same_content():
    note("b")
    note_score(note("a"), "7.54", LEDGER)
    note("a", mae_px=4.2)
    assert [(row["file"], row["oof_mae_px"], row["leaderboard"]) for row in read_ledger(LEDGER).rows] == [
        ("b.csv", "4.0000", ""),
        ("a.csv", "4.2000", "7.54"),
    ]
    # A score cost a submission: it stays with its content, and is the file's again when that is back.
    scored = read_ledger(LEDGER).rows[1]
    for _ in range(2):
        note("a", content="other")
        assert [(row["file"], row["leaderboard"]) for row in read_ledger(LEDGER).rows] == [
            ("b.csv", ""),
            (f"a@{scored['sha256']}.csv", "7.54"),
            ("a.csv", ""),
        ]
    note("a", mae_px=4.2)
    assert read_ledger(LEDGER).rows[1:] == [scored]
    note_score(note("a", content="third"), "12.345678", LEDGER)
    assert [row["leaderboard"] for row in read_ledger(LEDGER).rows] == ["", "7.54", "12.345678"]


def test_a_score_is_noted_only_for_the_content_that_was_noted():
    path = note("a")
    no_numbers = ("7,54", "+7.54", " 7.54", "7.54\u00a0", "7_0", "0x7", "\u0667.\u0665", "\uff17.5", "7.54\x0b", "1e999")
    for answer in ("", "good", "nan", "inf", "0", "-7", *no_numbers):
        with pytest.raises(UserError, match="LB="):
            note_score(path, answer, LEDGER)
    with pytest.raises(UserError, match=r"b\.csv: not in .*a\.csv"):
        note_score(path.with_name("b.csv"), "7.54", LEDGER)
    path.write_text("changed")
    with pytest.raises(UserError, match=r"a\.csv: has changed since"):
        note_score(path, "7.54", LEDGER)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.csv: no such file"):
        note_score(path, "7.54", LEDGER)
    assert [row["leaderboard"] for row in read_ledger(LEDGER).rows] == [""]


def test_columns_comments_and_order_of_a_ledger_edited_by_hand_stay():
    note("a")
    note("b")
    lines = LEDGER.read_text().splitlines()
    lines = [lines[0] + ",note", lines[2] + ',"best, so far"', lines[1] + ",", ""]
    LEDGER.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    note_score(note("a"), "7.54", LEDGER)
    note("c")
    rows = read_ledger(LEDGER).rows
    assert [(row["file"], row["note"], row["leaderboard"]) for row in rows] == [
        ("b.csv", "best, so far", ""),
        ("a.csv", "", "7.54"),
        ("c.csv", "", ""),
    ]


DAMAGED = {
    "empty": (lambda text: b"", "line 1: lacks file"),
    "no text": (lambda text: b"\xff\xfe\x00" + text.encode(), "not a text file"),
    "semicolons": (lambda text: text.replace(",", ";").encode(), "line 1: lacks file"),
    "a column gone": (lambda text: text.replace("oof_nme,", "", 1).encode(), "line 1: lacks oof_nme"),
    "a column twice": (lambda text: text.replace("leaderboard", "leaderboard,file", 1).encode(), "twice"),
    "cut off": (lambda text: text[:-30].encode(), "line 3: .* fields"),
    "a word for a figure": (lambda text: text.replace("4.0000", "about 4", 1).encode(), "line 2: oof_mae_px is 'about 4'"),
    "a row twice": (lambda text: (text + text.splitlines()[1] + "\n").encode(), "line 4: a.csv is there a second time"),
    "a hash that a spreadsheet rewrote": (
        lambda text: text.replace(text.split("\n")[1].split(",")[1], "6.02E+23").encode(),
        "line 2: sha256",
    ),
    "a quote never closed": (lambda text: text.replace("b.csv", '"b.csv').encode(), "correct that line"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_ledger_is_a_sentence_and_stays_as_it_is(name):
    damage, words = DAMAGED[name]
    path = note("a")
    note("b")
    content = damage(LEDGER.read_text())
    LEDGER.write_bytes(content)
    for action in (lambda: note("c"), lambda: note_score(path, "7.54", LEDGER), show_ledger):
        with pytest.raises(UserError, match=words) as refusal:
            action()
        assert str(LEDGER) in str(refusal.value).partition(":")[0]
        assert LEDGER.read_bytes() == content


def test_before_three_scores_the_ledger_says_what_is_missing(capsys):
    show_ledger()
    assert "has no row yet" in capsys.readouterr().out
    for name in "abc":
        path = note(name, content=name)
    note_score(path, "7.54", LEDGER)
    show_ledger()
    shown = capsys.readouterr().out
    assert "c.csv" in shown
    assert "1 of 3 rows have a leaderboard score" in shown
    assert "make score FILE=" in shown
    assert not LEDGER.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("answers", "mae", "nme"),
    [
        ((7.5, 8.5, 9.4, 13.6), "1.00", "-1.00"),
        ((8.5, 7.5, 9.4, 13.6), "0.80", "-0.80"),
        ((8, 8, 8, 8), "undefined", "undefined"),
    ],
)
def test_from_three_scores_on_the_ledger_draws_and_correlates_ranks(answers, mae, nme, capsys):
    for number, answer in enumerate(answers):
        note_score(note(f"run{number}", content=str(number), mae_px=3 + number, nme=6 - number / 10), str(answer), LEDGER)
    note("unscored")
    show_ledger()
    shown = capsys.readouterr().out
    assert f"over 4 files: OOF MAE {mae}" in shown
    assert f"OOF NME {nme}" in shown
    with Image.open(LEDGER.with_suffix(".png")) as picture:
        assert picture.format == "PNG"
    # A picture of scores that are gone would mislead.
    LEDGER.unlink()
    note("run0")
    show_ledger()
    assert not LEDGER.with_suffix(".png").exists()


def test_rows_are_never_torn_when_many_are_noted():
    """Each state on disk reads as a ledger: the whole file is replaced, never written in place."""
    inodes = []
    for number in range(5):
        note(f"run{number}", content=str(number))
        inodes.append(LEDGER.stat().st_ino)
        assert len(read_ledger(LEDGER).rows) == number + 1
    assert all(before != after for before, after in pairwise(inodes))


def test_scores_noted_at_once_are_all_kept():
    start = time.time() + 2
    processes = [
        subprocess.Popen([sys.executable, "-c", NOTE, note(f"run{number}", content=str(number)), f"7.{number}", str(start)])
        for number in range(1, 6)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * 5
    assert [row["leaderboard"] for row in read_ledger(LEDGER).rows] == [f"7.{number}" for number in range(1, 6)]


NOTE = """
import sys, time
from pathlib import Path
from foldmark.runs.experiment import Session
from foldmark.runs.places import Places
from foldmark.submission.ledger import note_score
assert "torch" not in sys.modules and "pandas" not in sys.modules
time.sleep(max(0, float(sys.argv[3]) - time.time()))
note_score(Path(sys.argv[1]), sys.argv[2], Path("submissions/ledger.csv"))
"""


def test_score_and_ledger_as_typed(foldmark, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    path = note("a")
    assert_refused(foldmark("score", "", "7.54"), "FILE=")
    assert_refused(foldmark("score", path, ""), "LB=")
    done = foldmark("score", path, "7.54")
    assert done.returncode == 0, done.stderr
    done = foldmark("ledger")
    assert done.returncode == 0, done.stderr
    assert "7.54" in done.stdout
    assert "1 of 1 rows" in done.stdout
