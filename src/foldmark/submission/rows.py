"""The rows of a competition file as read: each value in its place, and what is wrong with the form.

Strict where readers differ: a row without a finding is read by pandas as the same key and the same numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.files import MEGABYTE, read_bytes
from foldmark.submission.findings import Finding, spans

# No +, spaces, digits of other scripts, underscores, hexadecimals, nan or inf; pandas reads longer whole numbers as text.
NUMBER = re.compile(r"-?([0-9]{1,15}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,2})?")
WHOLE = re.compile(r"0|[1-9][0-9]{0,14}")
# Characters that split lines for some readers and not for others.
OTHER_LINE_ENDS = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
LIMIT = 256 * MEGABYTE  # a file of 716 faces has 2
SHOWN = 40  # characters of a wrong text in a message
EXPECTED = "name a competition file, such as submissions/resnet18.csv"


@dataclass(frozen=True)
class Layout:
    """The expected rows of a file: keys holds the text of each row's key columns, in order.

    numbered: the keys are numbers from 0; else they are texts, which may hold commas.
    """

    key_columns: tuple[str, ...]
    value_count: int
    keys: list[str]
    numbered: bool

    @property
    def label(self) -> str:
        return ",".join(self.key_columns)

    @cached_property
    def places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.keys)}

    def split(self, text: str) -> tuple[str, list[str]]:
        """A row's key and its values."""
        key, *values = text.split(",") if self.numbered else text.rsplit(",", self.value_count)
        return key, values

    def numbers(self, values: list[str]) -> list[float] | None:
        """A row's values as numbers, None if they are not as many finite ones as there should be."""
        numbers = [float(value) for value in values if NUMBER.fullmatch(value)]
        return numbers if len(numbers) == len(values) == self.value_count else None

    def correct_key(self, key: str) -> str | None:
        """The key as it should be written, None if it is none."""
        if not self.numbered or WHOLE.fullmatch(key):
            return key
        try:
            return str(int(float(key))) if key.isascii() and float(key).is_integer() else None
        except ValueError:
            return None


class Rows:
    """The rows of a file: values (rows, columns), NaN where one is missing, and which rows have which defect."""

    def __init__(self, layout: Layout, texts: list[str], first_line: int) -> None:
        self.layout, self.texts, self.first_line = layout, texts, first_line
        self.values = np.full((len(layout.keys), layout.value_count), np.nan)
        self.malformed: list[int] = []
        self.badly_written: list[int] = []
        self.repeated: list[int] = []
        self.unknown: list[int] = []
        self.not_finite: list[int] = []
        self.place_of: dict[int, int] = {}  # of each row whose key is there for the first time
        seen: set[str] = set()
        places = layout.places
        for row, text in enumerate(texts):
            key, values = layout.split(text)
            if not values:
                self.malformed.append(row)
                continue
            # Nearly all keys are expected ones, which need no parsing.
            correct = key if key in places else layout.correct_key(key)
            if correct != key:
                self.badly_written.append(row)
            numbers = layout.numbers(values)
            if numbers is None:
                self.not_finite.append(row)
            if correct is None:
                continue
            if correct in seen:
                self.repeated.append(row)
                continue
            seen.add(correct)
            if correct not in places:
                self.unknown.append(row)
                continue
            place = self.place_of[row] = places[correct]
            if numbers is not None:
                self.values[place] = numbers
        self.missing = [place for place, key in enumerate(layout.keys) if key not in seen]

    def findings(self, faces: int) -> Iterator[Finding]:
        """What is wrong with the form of the rows for so many faces, a finding a kind of defect."""
        label, keys = self.layout.label, self.layout.keys
        if len(self.texts) != len(keys):
            fix = f"{faces:,} faces need {len(keys) // faces:,} each, one a line, after the header."
            yield Finding("count", f"{len(self.texts):,} of {len(keys):,} rows are there", fix)
        numbers = "a finite number" if self.layout.value_count == 1 else f"{self.layout.value_count} finite numbers"
        known = f"{label}s run from 0 to {keys[-1]}." if self.layout.numbered else "use the pictures of the test list."
        second = "{label} {key} is there a second time where {label} {expected} belongs"
        kinds = [
            ("row", self.malformed, "the row is {text!r}", f"write {label}, a comma and {numbers}."),
            (
                label,
                self.badly_written,
                "{label} {key!r} is not a whole number",
                "write whole numbers as 0, 1, 2, without a point.",
            ),
            ("duplicate", self.repeated, second, f"give each {label} once."),
            ("order", self._misplaced(), "{label} {key} is out of order", "write the rows in the order of the test list."),
            (label, self.unknown, "{label} {key} is not on the test list", known),
            ("non-finite", self.not_finite, "{label} {key} is {values!r}", f"write {numbers} in pixels."),
        ]
        for defect, wrong, problem, fix in kinds:
            if wrong:
                yield Finding(defect, self._describe(problem, wrong), fix)
        if self.missing:
            yield Finding("missing", self._describe_missing(), f"give each {label} once.")

    def _misplaced(self) -> list[int]:
        # Against the rows' own places, sorted: one missing row does not put all that follow out of order.
        in_order = sorted(self.place_of.values())
        return [row for (row, place), right in zip(self.place_of.items(), in_order, strict=True) if place != right]

    def _describe(self, problem: str, rows: list[int]) -> str:
        row, keys = rows[0], self.layout.keys
        key, values = self.layout.split(self.texts[row])
        first = problem.format(
            label=self.layout.label,
            text=self.texts[row][:SHOWN],
            key=key[:SHOWN],
            values=",".join(values)[:SHOWN],
            expected=keys[row] if row < len(keys) else row,
        )
        more = f" ({len(rows):,} rows: lines {spans(np.array(rows) + self.first_line)})" if len(rows) > 1 else ""
        return f"line {row + self.first_line}: {first}{more}"

    def _describe_missing(self) -> str:
        if self.layout.numbered:
            return f"{self.layout.label}s {spans(self.missing)} are not there ({len(self.missing):,})"
        more = f" and {len(self.missing) - 1:,} more are" if len(self.missing) > 1 else " is"
        return f"{self.layout.label} {self.layout.keys[self.missing[0]]}{more} not there"


def read_number(text: str) -> float | None:
    """The finite number that every reader takes this text for, None if there is none."""
    return float(text) if NUMBER.fullmatch(text) else None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that end with a line feed, or with carriage return and line feed."""
    try:
        text = read_bytes(path, LIMIT).decode()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {EXPECTED}, which `make csv` writes.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; {EXPECTED}, or let `make csv` write it again.") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.removesuffix("\r") for line in lines]


def find_header_defect(lines: list[str], header: str) -> Iterator[Finding]:
    """The finding that the first line is not the header, if it is not."""
    first = lines[0] if lines else ""
    if first == header:
        return
    if OTHER_LINE_ENDS.search(first):
        fix = "end each line with a line feed, as Unix and Windows do."
    elif first.startswith("\ufeff"):
        fix = "save it as UTF-8 without a byte order mark."
    elif first.startswith("#"):
        fix = "np.savetxt puts the # there unless comments=''."
    else:
        fix = "nothing else may stand there."
    yield Finding("header", f"line 1 is {first[:SHOWN]!r} and must be {header!r}", fix)
