"""The competition's CSV: written, read back, and checked against the test list.

The only module that knows how a competition wants its file. Another format is another row of FORMATS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import atomic_path, digest
from foldmark.data.twins import find_twin_pairs, read_picture_sizes
from foldmark.submission.findings import Finding, spans
from foldmark.submission.plausibility import FaceFinding, find_implausible, find_not_finite
from foldmark.submission.rows import Layout, Rows, find_header_defect, read_lines


@dataclass(frozen=True)
class Format:
    """The CSV of one competition. Each row holds `keys`, which name it, and `values`, numbers in pixels of the original picture.

    Read row by row, the values are the faces in the order of the test list, each with its points in the order of the markup,
    x before y; with all_x_first, all x of a face before all its y.
    row_keys: from the test list and the number of rows a face, the text of the key columns of each row; None: numbers from 0.
    points: how many points a face must have.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    row_keys: Callable[[Faces, int], list[str]] | None = None
    points: int = 68
    decimals: int = 4
    all_x_first: bool = False

    @property
    def header(self) -> str:
        return ",".join([*self.keys, *self.values])

    @property
    def rows_per_face(self) -> int:
        return 2 * self.points // len(self.values)

    @property
    def digest(self) -> str:
        """Of all that decides how a file of the same points is written."""
        return digest([self.keys, self.values, self.decimals, self.all_x_first])

    def text(self, points_px: np.ndarray, faces: Faces) -> str:
        """The file of predictions (n, k, 2) for these n faces."""
        table = self._swap_axes(points_px).reshape(-1, len(self.values)).tolist()
        rows = (
            ",".join([key, *(f"{value:.{self.decimals}f}" for value in row)])
            for key, row in zip(self._row_keys(faces), table, strict=True)
        )
        return "\n".join([self.header, *rows]) + "\n"

    def write(self, path: Path, points_px: np.ndarray, faces: Faces, crop: CropConfig) -> None:
        """Write predictions (n, k, 2), in pixels of the original pictures, for these n faces.

        They are checked first, and the written file is read back before it replaces `path`. crop: how the models' crops were cut.
        Raises UserError for anything that is not a plausible prediction of these faces; `path` is then unchanged.
        """
        self.require_plausible(path, points_px, faces, crop)
        with atomic_path(path) as temporary:
            temporary.write_text(self.text(points_px, faces), encoding="utf-8", newline="\n")
            written_px, findings = self.read(temporary, faces)
            _refuse_first(findings, path)
            if not np.allclose(written_px, points_px, rtol=0, atol=10.0**-self.decimals):
                raise UserError(f"{path}: what was written does not read back the same; check the disk and try again.")

    def require_plausible(self, path: Path, points_px: np.ndarray, faces: Faces, crop: CropConfig) -> None:
        """Raise UserError, naming the face, where predictions cannot be written to `path` because they are wrong."""
        if points_px.shape != (len(faces), self.points, 2):
            raise UserError(f"{path}: points of shape {points_px.shape} do not fit {len(faces)} faces of {self.points} points.")
        wrong = find_not_finite(points_px) or find_implausible(points_px, faces, crop)
        _refuse_first([self._name_faces(finding, faces) for finding in wrong], path)

    def require_points(self, picked: Sequence[int] | None, count: int, name: object) -> None:
        """Raise UserError for an experiment that predicts another number of points than the competition asks for, or that picks
        (data.points) them in another order."""
        if count != self.points or (picked and list(picked) != sorted(picked)):
            what = f"{count} points a face" if count != self.points else "the points in another order (data.points)"
            raise UserError(
                f"{name}: predicts {what}, and the competition's file has {self.points}; "
                "train an experiment without data.points for it."
            )

    def read(self, path: Path, faces: Faces) -> tuple[np.ndarray, list[Finding]]:
        """points_px (n, k, 2), NaN where a value is missing, and what is wrong with the file's form. Raises UserError for a
        file that cannot be read."""
        lines = read_lines(path)
        layout = Layout(self.keys, len(self.values), self._row_keys(faces), numbered=self.row_keys is None)
        headless = bool(lines) and lines[0] != self.header and layout.numbers(layout.split(lines[0])[1]) is not None
        rows = Rows(layout, lines if headless else lines[1:], first_line=1 if headless else 2)
        findings = [*find_header_defect(lines, self.header), *rows.findings(len(faces))]
        shape = (len(faces), 2, self.points) if self.all_x_first else (len(faces), self.points, 2)
        return self._swap_axes(rows.values.reshape(shape)), findings

    def findings(self, path: Path, faces: Faces, crop: CropConfig) -> list[Finding]:
        """All that is wrong with a file for these faces: its form first, then the points of the faces whose values are all
        there. Raises UserError only for a file that cannot be read."""
        points_px, findings = self.read(path, faces)
        return findings + [self._name_faces(finding, faces) for finding in find_implausible(points_px, faces, crop)]

    def check(self, path: Path, faces: Faces, crop: CropConfig) -> None:
        """Raise UserError, naming the line or the face, with the first thing that is wrong with a file for these faces."""
        _refuse_first(self.findings(path, faces, crop), path)

    def summary(self, faces: Faces) -> str:
        """What was compared in a file without findings."""
        pairs = find_twin_pairs(faces)
        compared = int(np.isfinite(read_picture_sizes(faces)[pairs[:, 1], 0]).sum())
        left_out = (
            "" if compared == len(pairs) else f" ({len(pairs) - compared} more were not compared: their pictures cannot be read)"
        )
        return (
            f"{len(faces)} faces, {len(faces) * self.rows_per_face} rows in order, all finite and plausible against their boxes; "
            f"{compared} mirror twins agree with their pictures{left_out}"
        )

    def name_face(self, row: int, faces: Faces) -> str:
        """A face of the test list by its picture, its number and its rows in the file."""
        return f"{faces.pictures[row]} (face {row + 1} of {len(faces)}, {self._rows_of(np.array([row]))})"

    def _name_faces(self, finding: FaceFinding, faces: Faces) -> Finding:
        more = f" ({len(finding.rows)} faces: {self._rows_of(finding.rows)})" if len(finding.rows) > 1 else ""
        return Finding(finding.defect, f"{self.name_face(finding.rows[0], faces)}: {finding.problem}{more}", finding.fix)

    def _rows_of(self, faces: np.ndarray) -> str:
        rows = (faces[:, None] * self.rows_per_face + np.arange(self.rows_per_face)).ravel()
        # The first line is the header.
        return f"{self.keys[0]}s {spans(rows)}" if self.row_keys is None else f"lines {spans(rows + 2)}"

    def _row_keys(self, faces: Faces) -> list[str]:
        if self.row_keys is None:
            return [str(number) for number in range(len(faces) * self.rows_per_face)]
        keys = self.row_keys(faces, self.rows_per_face)
        if len(set(keys)) < len(keys):
            raise UserError(
                f"{faces.root}: a picture is on the test list twice, so {','.join(self.keys)} does not name its rows."
            )
        return keys

    def _swap_axes(self, points: np.ndarray) -> np.ndarray:
        return points.swapaxes(1, 2) if self.all_x_first else points


# By the data set whose test list is predicted.
FORMATS = {"ibug": Format(keys=("Id",), values=("Predicted",))}


def pick_format(data_set: str) -> Format:
    """The format of the competition on this data set. Raises UserError where there is none."""
    if data_set not in FORMATS:
        raise UserError(f"data.set={data_set}: has no test list, so there is no competition file to write or check for it.")
    return FORMATS[data_set]


def _refuse_first(findings: list[Finding], path: Path) -> None:
    if findings:
        raise UserError(f"{path}: {findings[0].sentence}")
