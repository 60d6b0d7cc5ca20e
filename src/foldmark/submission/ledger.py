"""The ledger, submissions/ledger.csv: a row for each competition file with its out-of-fold figures and, once it is
known, the leaderboard's answer; and how well the first foretell the second.

It may be edited by hand, and columns added to it. What does not read as a ledger any more is refused, never repaired.
"""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from foldmark.core.errors import UserError
from foldmark.core.files import atomic_path, file_sha256, write_text
from foldmark.show.terminal import console

# Only named here: `foldmark score` has no use for what it imports.
if TYPE_CHECKING:
    from foldmark.submission.record import Provenance

LEDGER = Path("submissions/ledger.csv")
COLUMNS = ["file", "sha256", "made", "experiment", "folds", "faces", "oof_mae_px", "oof_nme", "leaderboard"]
NUMBERS = ["oof_mae_px", "oof_nme", "leaderboard"]
SHORT = 12  # digits of a sha256
SCORED_FOR_RANKS = 3  # of two rows, the ranks agree or they do not; that says nothing

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
    """The ledger's columns, those that its owner added among them, and its rows."""

    columns: list[str]
    rows: list[Row]

    def row(self, submission: Path) -> Row | None:
        return next((row for row in self.rows if row["file"] == submission.name), None)


def read_ledger(path: Path = LEDGER) -> Ledger:
    """The ledger, without rows if there is none yet. Raises UserError that names the line that is no ledger's."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Ledger(list(COLUMNS), [])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; restore it, or move it away to start a new one.") from None
    # Strict: a quote that is never closed would swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = next(reader, [])
        lacking = [column for column in COLUMNS if column not in header]
        if lacking or len(set(header)) < len(header):
            what = f"lacks {', '.join(lacking)}" if lacking else "names a column twice"
            raise UserError(f"{path}, line 1: {what}; columns are {', '.join(COLUMNS)}, separated by commas: mend that line.")
        for fields in reader:
            if fields:
                rows.append(_checked(fields, header, rows, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a row of a CSV file ({error}); correct that line.") from None
    return Ledger(header, rows)


def note_submission(submission: Path, record: "Provenance", path: Path = LEDGER) -> None:
    """Note a competition file that was just written. Its older row is replaced; the leaderboard's answer stays only if the
    content is the same. Raises UserError for a ledger that cannot be read; it then is as it was."""
    ledger = read_ledger(path)
    new = {
        "file": submission.name,
        "sha256": record.sha256[:SHORT],
        "made": record.made,
        "experiment": " + ".join(experiment.name for experiment in record.experiments),
        "folds": " + ".join(" ".join(str(fold.fold) for fold in experiment.folds) for experiment in record.experiments),
        "faces": str(record.faces),
        "oof_mae_px": f"{record.oof.mae_px:.4f}",
        "oof_nme": f"{record.oof.nme:.4f}",
        "leaderboard": "",
    }
    older = ledger.row(submission)
    if older is None:
        ledger.rows.append(new)
    else:
        same = older["sha256"] == new["sha256"]
        older.update(new | ({"leaderboard": older["leaderboard"]} if same else {}))
    _write(path, ledger)


def note_score(submission: Path, leaderboard: str, path: Path = LEDGER) -> None:
    """Note the leaderboard's answer to a competition file. Raises UserError for a file that is not in the ledger or has
    changed since, and for an answer that is no score."""
    score = _number(leaderboard)
    if score is None or score <= 0:
        raise UserError(f'LB="{leaderboard}": give the score that the leaderboard shows, such as LB=7.54.')
    ledger = read_ledger(path)
    row = ledger.row(submission)
    if row is None:
        noted = ", ".join(row["file"] for row in ledger.rows) or "nothing yet"
        raise UserError(
            f"{submission}: not in {path}, which notes what make csv writes ({noted}); name one of those with FILE=..."
        )
    if not submission.is_file():
        raise UserError(f"{submission}: no such file, so its content cannot be told; restore it, or write the score into {path}.")
    if not file_sha256(submission).startswith(row["sha256"]):
        raise UserError(f"{submission}: has changed since {path} noted it; a score belongs to one content: run make csv again.")
    row["leaderboard"] = f"{score:g}"
    _write(path, ledger)
    console.print(f"{path}: {submission.name} scored {score:g}. Next: make ledger (all files, foretold against scored)")


def show_ledger(path: Path = LEDGER) -> None:
    """Print the ledger, draw out-of-fold figures against the leaderboard beside it, and say how their ranks agree or what
    is missing for that."""
    rows = read_ledger(path).rows
    if not rows:
        console.print(f"{path}: nothing is noted yet; make csv writes a competition file and notes it.")
        return
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for title in SHOWN.values():
        # Folded rather than cut: on a narrow terminal two names may differ only in their ends.
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*({**row, "made": row["made"][:10]}[column] for column in SHOWN))
    console.print(table)
    scored = [row for row in rows if all(row[column] for column in NUMBERS)]
    picture = path.with_suffix(".png")
    if len(scored) < SCORED_FOR_RANKS:
        # An older picture would show scores that no longer stand in the ledger.
        picture.unlink(missing_ok=True)
        console.print(
            f"{len(scored)} of {len(rows)} rows have a leaderboard score; from {SCORED_FOR_RANKS} on, they are drawn and their "
            "rank correlation is given: make score FILE=submissions/<name>.csv LB=<score>"
        )
        return
    ranks = {column: _rank_correlation(scored, column) for column in ("oof_mae_px", "oof_nme")}
    _draw(picture, scored, ranks)
    console.print(
        f"Spearman's rank correlation with the leaderboard, over {len(scored)} files: "
        f"OOF MAE {ranks['oof_mae_px']}, OOF NME {ranks['oof_nme']}. Made: {picture}"
    )


def _checked(fields: list[str], header: list[str], before: list[Row], where: str) -> Row:
    if len(fields) != len(header):
        raise UserError(f"{where}: {len(fields)} fields where the header has {len(header)}; correct that line.")
    row = dict(zip(header, fields, strict=True))
    for column in NUMBERS:
        if row[column] and _number(row[column]) is None:
            raise UserError(f"{where}: {column} is {row[column]!r}, not a number; correct it, or leave it empty.")
    if not row["file"]:
        raise UserError(f"{where}: names no file; correct or remove that line.")
    if any(row["file"] == other["file"] for other in before):
        raise UserError(f"{where}: {row['file']} is there a second time; remove one of the two lines.")
    if len(row["sha256"]) != SHORT or set(row["sha256"]) - set("0123456789abcdef"):
        raise UserError(f"{where}: sha256 is {row['sha256']!r}, not {SHORT} hexadecimal digits; restore it, or remove that line.")
    return row


def _write(path: Path, ledger: Ledger) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ledger.columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(ledger.rows)
    write_text(path, text.getvalue())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _rank_correlation(scored: list[Row], column: str) -> str:
    from scipy.stats import spearmanr

    figures, answers = ([float(row[name]) for row in scored] for name in (column, "leaderboard"))
    if len(set(figures)) == 1 or len(set(answers)) == 1:
        return "undefined (all are equal)"
    return f"{spearmanr(figures, answers).statistic:.2f}"


def _draw(path: Path, scored: list[Row], ranks: dict[str, str]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (column, label) in zip(axes, {"oof_mae_px": "OOF MAE, px", "oof_nme": "OOF NME, %"}.items(), strict=True):
        for row in scored:
            place = float(row[column]), float(row["leaderboard"])
            axis.plot(*place, "o", color="#0072b2")
            axis.annotate(Path(row["file"]).stem, place, xytext=(5, 4), textcoords="offset points", fontsize=8)
        axis.set(xlabel=label, title=f"Spearman's rank correlation {ranks[column]} ({len(scored)} files)")
        axis.title.set_fontsize(10)
        axis.margins(0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("leaderboard, px")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
