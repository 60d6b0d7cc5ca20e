"""The folder of one fold, `runs/<experiment>/fold0/`. No other file knows the names of the files in it.

metrics.csv    a row an epoch; W&B shows the same
last.pt        the state to resume from; of a finished fold, its final model
previous.pt    the state before, until the fold is finished
oof.npz        out-of-fold (OOF) predictions: pictures (n,), boxes_px (n, 4), points_px (n, k, 2), spread_px and votes_px
               (n, k)
summary.json   the fold's figures; a fold is finished when this file is there

`runs/<experiment>/all/` is that of a net that learned all faces: the same files, but without OOF predictions.
"""

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import MEGABYTE, atomic_path, read_bytes, read_text
from foldmark.core.prediction import Prediction

if TYPE_CHECKING:
    from pandas import DataFrame

# In place of a fold's number: nothing is held out, so no figure can be measured on the faces of the run.
ALL_FACES, ALL_NAME = -1, "all"


@dataclass(frozen=True)
class FoldFolder:
    """The folder of one fold."""

    path: Path

    @property
    def number(self) -> int:
        return ALL_FACES if self.path.name == ALL_NAME else int(self.path.name.removeprefix("fold"))

    @property
    def holds_out(self) -> bool:
        """Whether there are faces that the net has not learned, and so OOF predictions and figures."""
        return self.path.name != ALL_NAME

    @property
    def results(self) -> tuple[Path, ...]:
        """What a finished training leaves beside its summary."""
        return (self.checkpoint, *([self.oof_file] if self.holds_out else []), self.metrics_file)

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.pt"

    @property
    def previous_checkpoint(self) -> Path:
        return self.path / "previous.pt"

    @property
    def oof_file(self) -> Path:
        return self.path / "oof.npz"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def faces_sheet(self) -> Path:
        return self.path / "faces.png"

    @property
    def test_predictions(self) -> Path:
        """Predictions for the test list, kept because predicting takes long."""
        return self.path / "test.npz"

    @property
    def consistency_file(self) -> Path:
        return self.path / "consistency.json"

    def read_metrics(self) -> "DataFrame":
        """metrics.csv, a row an epoch. Raises UserError where it is missing or damaged."""
        import pandas  # slow to import

        try:
            metrics = pandas.read_csv(io.BytesIO(read_bytes(self.metrics_file, 64 * MEGABYTE)))
            if {"epoch", "nme"} <= set(metrics) and metrics["nme"].notna().any():
                return metrics
        except (OSError, ValueError):
            pass
        raise UserError(f"{self.metrics_file}: is missing or damaged; run make train again, which writes it again.")

    @property
    def metrics_written(self) -> int:
        """When metrics.csv was written, in ns; 0 where there is none."""
        try:
            return self.metrics_file.stat().st_mtime_ns
        except OSError:
            return 0

    def read_epochs(self) -> list[dict]:
        """The rows of metrics.csv to the last bit, None for what was not measured; none where it is missing or damaged."""
        try:
            rows = list(csv.DictReader(read_text(self.metrics_file).splitlines()))
            values = [{key: float(text) if text else None for key, text in row.items()} for row in rows]
            return [{**row, "epoch": int(row["epoch"] or 0)} for row in values]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def best_epoch(self) -> tuple[int, float]:
        """The epoch with the lowest held-out NME, and that NME in percent. No model of it is kept: chosen on the held-out faces,
        its figures would flatter."""
        metrics = self.read_metrics()
        best = metrics.loc[metrics["nme"].idxmin()]
        return int(best["epoch"]), float(best["nme"])

    @property
    def finished(self) -> bool:
        """Whether there is a summary, be it damaged."""
        return os.path.lexists(self.summary_file)

    @property
    def summary(self) -> dict | None:
        """The figures of a finished fold, None for one that is not. Raises UserError for a damaged file."""
        if not self.finished:
            return None
        try:
            summary = json.loads(read_text(self.summary_file))
            measured = ("faces", "mae_px", "nme") if self.holds_out else ()
            whole = all(isinstance(summary[key], int | float) for key in (*measured, "seconds", "parameters"))
        except (OSError, ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise UserError(f"{self.summary_file}: damaged; restore it, or remove {self.path} and run make train again.")
        return summary

    def require_summary(self) -> dict:
        """The figures of a finished fold. Raises UserError for one that is not finished, or damaged."""
        summary = self.summary
        if summary is None:
            raise UserError(f"{self.path}: is not finished; run make train first.")
        return summary

    def write_oof(self, held_out: Faces, prediction: Prediction) -> None:
        """Write the predictions of these held-out faces."""
        with atomic_path(self.oof_file) as temporary, temporary.open("wb") as file:
            pictures = np.array(held_out.pictures, dtype=np.str_)
            np.savez(file, pictures=pictures, boxes_px=held_out.boxes_px, **vars(prediction))

    def read_oof(self, faces: Faces) -> tuple[np.ndarray, Prediction]:
        """rows (n,) of the run's faces, and their predictions as `write_oof` took them; faces are known by picture and box,
        whatever their order. Raises UserError for a file that is missing, damaged, or of faces that are not there."""
        try:
            with np.load(io.BytesIO(read_bytes(self.oof_file, 4096 * MEGABYTE))) as stored:
                content = {name: stored[name] for name in stored.files}
            points_px, spread_px = content["points_px"], content["spread_px"]
            # Folds of earlier versions name rows, and have no votes.
            rows = content["rows"] if "rows" in content else faces.find_rows(content["pictures"].tolist(), content["boxes_px"])
            votes_px = content.get("votes_px", np.zeros_like(spread_px))
            expected = (len(rows), faces.markup.count)
            shapes = (points_px.shape, spread_px.shape, votes_px.shape)
            if shapes != ((*expected, 2), expected, expected) or not np.isfinite(points_px).all():
                raise ValueError("not predictions of these faces")
            if len(set(rows.tolist())) < len(rows) or not ((rows >= 0) & (rows < len(faces))).all():
                raise ValueError("faces that are not in the data set")
        except Exception as error:  # a damaged archive raises nearly anything
            raise UserError(
                f"{self.oof_file}: cannot be used ({error}); restore it and the data set, or remove {self.path} and run make "
                "train again."
            ) from None
        return rows, Prediction(points_px, spread_px, votes_px)
