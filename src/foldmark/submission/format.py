"""The competition file: written, read back, and checked against the test list.

`Id,Predicted`, one row a value: faces in the order of the test list, points 0 to 67, x then y, in pixels of the
original picture.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path
from foldmark.core.markup import IBUG68
from foldmark.data.twins import picture_sizes, twin_pairs
from foldmark.show.terminal import console
from foldmark.submission.plausibility import VALUES, Finding, not_finite, point_findings, spans

HEADER = "Id,Predicted"
DECIMALS = 4

CROP = CropConfig()


def write_submission(path: Path, points_px: np.ndarray, faces: Faces, crop: CropConfig = CROP) -> None:
    """Write predictions (n, 68, 2), in pixels of the original pictures, as the competition's file.

    They are checked first, and what was written is read back and checked before it takes the place of `path`. The
    record of provenance beside it goes, for it is another file's. crop: how the nets' crops were cut. Raises UserError
    for anything that is not a plausible prediction of these faces; `path` then is as it was.
    """
    if points_px.shape != (len(faces), IBUG68.count, 2):
        raise UserError(f"{path}: points of shape {points_px.shape} do not fit {len(faces)} faces of {IBUG68.count} points.")
    _refuse_first(not_finite(points_px, faces) or point_findings(points_px, faces, crop), path)
    with atomic_path(path) as temporary:
        temporary.write_text(submission_text(points_px), encoding="ascii")
        written_px, findings = read_submission(temporary, len(faces))
        _refuse_first(findings, path)
        if not np.allclose(written_px, points_px, rtol=0, atol=10.0**-DECIMALS):
            raise UserError(f"{path}: what was written does not read back the same; check the disk and try again.")
        # The last step before the renaming, so that a crash never leaves a CSV beside another one's record.
        provenance_path(path).unlink(missing_ok=True)


def submission_text(points_px: np.ndarray) -> str:
    """The competition file of predictions (n, 68, 2)."""
    rows = (f"{index},{value:.{DECIMALS}f}" for index, value in enumerate(points_px.ravel().tolist()))
    return "\n".join([HEADER, *rows]) + "\n"


def provenance_path(csv: Path) -> Path:
    """Where the record stands of what a competition file was made from."""
    return csv.with_suffix(".json")


def check_submission(path: Path, faces: Faces, crop: CropConfig = CROP) -> None:
    """Raise UserError, naming the line or the face, with the first thing that is wrong in a competition file for these
    faces."""
    _refuse_first(submission_findings(path, faces, crop), path)


def submission_findings(path: Path, faces: Faces, crop: CropConfig = CROP) -> list[Finding]:
    """All that is wrong with any competition file for these faces: its form first, then the points of the faces whose
    values are all there. Raises UserError only for a file that cannot be read."""
    points_px, findings = read_submission(path, len(faces))
    return findings + point_findings(points_px, faces, crop)


def report_submission(path: Path, faces: Faces, crop: CropConfig) -> None:
    """Print all that is wrong with a competition file, a line each. Raises UserError if there is anything."""
    findings = submission_findings(path, faces, crop)
    for finding in findings:
        console.print(f"{finding.defect}: {finding.sentence}", markup=False)
    if findings:
        count = "1 kind of defect" if len(findings) == 1 else f"{len(findings)} kinds of defects"
        raise UserError(f"{path}: has {count}, listed above; mend each before it is uploaded.")
    pairs = twin_pairs(faces)
    compared = int(np.isfinite(picture_sizes(faces)[pairs[:, 1], 0]).sum())
    without = (
        "" if compared == len(pairs) else f" ({len(pairs) - compared} more were not compared: their pictures cannot be read)"
    )
    console.print(
        f"{path}: no defect found: {len(faces)} faces, {len(faces) * VALUES} rows in order, all finite and plausible against "
        f"their boxes; {compared} mirror twins agree with their pictures{without}."
    )


def read_submission(path: Path, count: int) -> tuple[np.ndarray, list[Finding]]:
    """points_px (count, 68, 2), each value where its Id says, NaN where there is none, and what is wrong with the form."""
    lines = _lines(path)
    # A file whose header is missing starts with its first value, which should not count as lost.
    headless = bool(lines) and lines[0] != HEADER and _number(lines[0].partition(",")[2]) is not None
    rows = _Rows(lines if headless else lines[1:], first_line=1 if headless else 2, expected=count * VALUES)
    findings = [*_header_findings(lines), *rows.findings()]
    return rows.values.reshape(count, IBUG68.count, 2), findings


class _Rows:
    """The rows of a competition file, each sorted to what it is: a value in its place, or a defect."""

    def __init__(self, rows: list[str], first_line: int, expected: int) -> None:
        self.rows, self.first_line, self.expected = rows, first_line, expected
        self.values = np.full(expected, np.nan)
        self.malformed, self.not_whole, self.again, self.beyond, self.not_finite = [], [], [], [], []
        self.id_of = {}  # of each row whose Id is there for the first time
        seen = set()
        for row, text in enumerate(rows):
            identity, comma, value = text.partition(",")
            if not comma:
                self.malformed.append(row)
                continue
            index = int(identity) if _whole(identity) else None
            if index is None:
                self.not_whole.append(row)
                number = _number(identity)
                index = int(number) if number is not None and number == math.floor(number) else None
            number = _number(value)
            if number is None:
                self.not_finite.append(row)
            if index is None:
                continue
            if index in seen:
                self.again.append(row)
                continue
            seen.add(index)
            if not 0 <= index < expected:
                self.beyond.append(row)
                continue
            self.id_of[row] = index
            if number is not None:
                self.values[index] = number
        self.missing = sorted(set(range(expected)) - seen)

    def findings(self) -> Iterator[Finding]:
        rows, expected = self.rows, self.expected
        if len(rows) != expected:
            yield Finding(
                "count",
                f"{len(rows):,} of {expected:,} rows are there",
                f"{expected // VALUES:,} faces need {VALUES} each, one a line, after the header.",
            )
        found = [
            ("row", self.malformed, "{line} is {text!r}", "write an Id, a comma and a number."),
            ("Id", self.not_whole, "{line}: Id {identity!r} is not a whole number", "Ids are written 0, 1, 2, without a point."),
            (
                "duplicate",
                self.again,
                "{line}: Id {identity} is there a second time where Id {place} belongs",
                "give each Id once.",
            ),
            ("order", self._misplaced(), "{line}: Id {identity} is out of order", "sort the rows by Id, from 0."),
            ("Id", self.beyond, "{line}: Id {identity} is not on the test list", f"Ids run from 0 to {expected - 1}."),
            ("non-finite", self.not_finite, "{line}: Id {identity} is {value!r}", "write a finite number of pixels."),
        ]
        for defect, places, problem, mend in found:
            if places:
                yield Finding(defect, self._described(problem, places), mend)
        if self.missing:
            yield Finding("missing", f"Ids {spans(self.missing)} are not there ({len(self.missing):,})", "give each Id once.")

    def _misplaced(self) -> list[int]:
        # Against the rows' own Ids, sorted: one row that is missing should not put all that follow out of order.
        return [
            row for (row, index), right in zip(self.id_of.items(), sorted(self.id_of.values()), strict=True) if index != right
        ]

    def _described(self, problem: str, places: list[int]) -> str:
        identity, _, value = self.rows[places[0]].partition(",")
        first = problem.format(
            line=f"line {places[0] + self.first_line}",
            text=self.rows[places[0]][:40],
            identity=identity[:40],
            value=value[:40],
            place=places[0],
        )
        more = f" ({len(places):,} rows: lines {spans(np.array(places) + self.first_line)})" if len(places) > 1 else ""
        return first + more


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `make csv` writes it.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; `make csv` writes it anew.") from None


def _header_findings(lines: list[str]) -> Iterator[Finding]:
    header = lines[0] if lines else ""
    if header != HEADER:
        hint = "np.savetxt puts the # there unless comments=''." if header.startswith("#") else "nothing else may stand there."
        yield Finding("header", f"line 1 is {header[:40]!r} and must be {HEADER!r}", hint)


def _whole(text: str) -> bool:
    return len(text) < 16 and text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))


def _number(text: str) -> float | None:
    """The finite number that the text is, None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def _refuse_first(findings: list[Finding], path: Path) -> None:
    if findings:
        raise UserError(f"{path}: {findings[0].sentence}")
