"""The ledger, submissions/ledger.csv: a row for each competition file with its out-of-fold (OOF) figures and, once it is known,
its leaderboard score; and how well the figures predict the scores.

It may be edited by hand, and columns may be added. A file that is not a ledger any more is refused, never repaired.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256, lock_file, read_text, write_text
from foldmark.submission.rows import read_number

# Imported for its name only: `foldmark score` would take twice as long with it.
if TYPE_CHECKING:
    from foldmark.submission.record import Provenance

COLUMNS = ["file", "sha256", "made", "experiment", "folds", "faces", "oof_mae_px", "oof_nme", "leaderboard"]
OOF_FIGURES = ["oof_mae_px", "oof_nme"]
NUMBERS = [*OOF_FIGURES, "leaderboard"]
SHORT = 12  # digits of a sha256
SCORED_FOR_RANKS = 3  # the ranks of two rows agree or not, which says nothing

SHOWN = {
    "file": "file",
    "made": "made",
    "folds": "folds",
    "faces": "faces",
    "oof_mae_px": "OOF MAE",
    "oof_nme": "OOF NME",
    "leaderboard": "leaderboard",
}

Row = dict[str, str]


@dataclass(frozen=True)
class Ledger:
    """The ledger's columns, including those that its owner added, and its rows."""

    columns: list[str]
    rows: list[Row]

    def row(self, csv_file: Path) -> Row | None:
        return next((row for row in self.rows if row["file"] == csv_file.name), None)

    def is_best(self, csv_file: Path) -> bool:
        """Whether no file for as many faces has a lower OOF NME."""
        own = self.row(csv_file)
        if own is None or not own["oof_nme"]:
            return False
        nmes = [float(row["oof_nme"]) for row in self.rows if row["oof_nme"] and row["faces"] == own["faces"]]
        return float(own["oof_nme"]) <= min(nmes)

    @property
    def scored(self) -> list[Row]:
        """The rows with all figures and a leaderboard score."""
        return [row for row in self.rows if all(row[column] for column in NUMBERS)]

    def rank_correlations(self) -> dict[str, str] | None:
        """Spearman's rank correlation of each OOF figure with the leaderboard, in words; None while too few rows are scored."""
        if len(self.scored) < SCORED_FOR_RANKS:
            return None
        return {column: _rank_correlation(self.scored, column) for column in OOF_FIGURES}


def read_ledger(path: Path) -> Ledger:
    """The ledger, without rows if there is none yet. Raises UserError that names the line that does not belong in a ledger."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return Ledger(list(COLUMNS), [])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; restore it, or move it away to start a new one.") from None
    # Strict: a quote that is never closed would swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        lacking = [column for column in COLUMNS if column not in header]
        if lacking or len(set(header)) < len(header):
            what = f"lacks {', '.join(lacking)}" if lacking else "names a column twice"
            raise UserError(f"{path}, line 1: {what}; columns are {', '.join(COLUMNS)}, separated by commas: fix that line.")
        for fields in reader:
            if fields:
                rows.append(_checked(fields, header, rows, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a row of a CSV file ({error}); correct that line.") from None
    return Ledger(header, rows)


def table_rows(rows: list[Row]) -> list[Row]:
    """Rows of the ledger as tables show them: titles for columns, days for times."""
    return [{title: {**row, "made": row["made"][:10]}[column] for column, title in SHOWN.items()} for row in rows]


def note_submission(csv_file: Path, record: "Provenance", path: Path) -> None:
    """Add a row for a competition file that was just written. It replaces the file's older row, unless that has a leaderboard
    score of other content: such a row stays, under the name that `scored_name` gives, until its content is back. A file that
    another process has replaced meanwhile is left to that process. Raises UserError for a ledger that cannot be read, which is
    then unchanged."""
    new = {
        "file": csv_file.name,
        "sha256": record.sha256[:SHORT],
        "made": record.made,
        "experiment": " + ".join(experiment.name for experiment in record.experiments),
        "folds": " + ".join(" ".join(str(fold.fold) for fold in experiment.folds) for experiment in record.experiments),
        "faces": str(record.faces),
        "oof_mae_px": f"{record.oof.mae_px:.4f}",
        "oof_nme": f"{record.oof.nme:.4f}",
        "leaderboard": "",
    }
    with _change(path) as ledger:
        if file_sha256(csv_file) != record.sha256:
            return
        older, back = ledger.row(csv_file), ledger.row(scored_name(csv_file, new["sha256"]))
        if older and older["leaderboard"] and older["sha256"] != new["sha256"]:
            older["file"] = scored_name(csv_file, older["sha256"]).name
            older = None
        if back:
            ledger.rows.remove(back)
        same = next((row for row in (older, back) if row and row["sha256"] == new["sha256"]), {})
        new = {**same, **new, "leaderboard": same.get("leaderboard", "")}
        if older is None:
            ledger.rows.append(new)
        else:
            older.update(new)


def scored_name(csv_file: Path, sha256: str) -> Path:
    """The name in the ledger of content that was scored, and then replaced in its file."""
    return csv_file.with_name(f"{csv_file.stem}@{sha256}.csv")


def note_score(csv_file: Path, leaderboard: str, path: Path) -> float:
    """Note the leaderboard score of a competition file, and return it. Raises UserError for a file that is not in the ledger or
    has changed since, and for a text that is no score."""
    score = read_number(leaderboard)
    if score is None or score <= 0:
        raise UserError(f'LB="{leaderboard}": give the score that the leaderboard shows, such as LB=7.54.')
    with _change(path) as ledger:
        row = ledger.row(csv_file)
        if row is None:
            noted = ", ".join(row["file"] for row in ledger.rows)
            fix = f"it has {noted}; name one of these with FILE=..." if noted else "it has no row yet; run make csv first."
            raise UserError(f"{csv_file}: not in {path}, where make csv notes each file: {fix}")
        if not csv_file.is_file():
            raise UserError(f"{csv_file}: no such file, so its content is unknown; restore it, or write the score into {path}.")
        if not file_sha256(csv_file).startswith(row["sha256"]):
            raise UserError(
                f"{csv_file}: has changed since {path} noted it; a score belongs to one content: move it away and run make csv "
                "again."
            )
        row["leaderboard"] = f"{score:.10g}"
    return score


@contextmanager
def _change(path: Path) -> Iterator[Ledger]:
    """The ledger to change; it is written when the block ends without an error."""
    with lock_file(path):
        ledger = read_ledger(path)
        yield ledger
        text = io.StringIO()
        writer = csv.DictWriter(text, ledger.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(ledger.rows)
        write_text(path, text.getvalue())


def _checked(fields: list[str], header: list[str], before: list[Row], where: str) -> Row:
    if len(fields) != len(header):
        raise UserError(f"{where}: {len(fields)} fields where the header has {len(header)}; correct that line.")
    row = dict(zip(header, fields, strict=True))
    for column in NUMBERS:
        if row[column] and read_number(row[column]) is None:
            raise UserError(f"{where}: {column} is {row[column]!r}, not a number; correct it, or leave it empty.")
    if not row["file"]:
        raise UserError(f"{where}: names no file; correct or remove that line.")
    if any(row["file"] == other["file"] for other in before):
        raise UserError(f"{where}: {row['file']} is there a second time; remove one of the two lines.")
    if len(row["sha256"]) != SHORT or set(row["sha256"]) - set("0123456789abcdef"):
        raise UserError(f"{where}: sha256 is {row['sha256']!r}, not {SHORT} hexadecimal digits; restore it, or remove that line.")
    return row


def _rank_correlation(scored: list[Row], column: str) -> str:
    from scipy.stats import spearmanr

    figures, scores = ([float(row[name]) for row in scored] for name in (column, "leaderboard"))
    if len(set(figures)) == 1 or len(set(scores)) == 1:
        return "undefined (all are equal)"
    return f"{spearmanr(figures, scores).statistic:.2f}"
