"""The run folder: what one experiment keeps in `runs/<experiment>/`. No other file knows the names of the files in it.

config.yaml          the resolved config
split.csv            which face is in which fold
environment.json     versions, revision, machine
ensemble.json        calibration of the uncertainty, when folds are finished (ensemble/fit.py)
fold0/metrics.csv    a row an epoch; W&B shows the same
fold0/last.pt        the state to resume from; of a finished fold, its final model
fold0/previous.pt    the state before, until the fold is finished
fold0/oof.npz        out-of-fold (OOF) predictions: pictures (n,), boxes_px (n, 4), points_px (n, k, 2), spread_px and votes_px
                     (n, k)
fold0/summary.json   the fold's figures; a fold is finished when this file is there
"""

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldmark.core.config import Config, apply_overrides, check_config, drop_retired, format_config, list_differences
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import MEGABYTE, atomic_path, is_locked, read_bytes, read_text, write_text
from foldmark.core.prediction import Prediction
from foldmark.core.yaml_values import read_yaml

if TYPE_CHECKING:
    from pandas import DataFrame

# A copy under another spelling of the number, such as fold00, would count a fold twice.
FOLD_NAME = re.compile("fold(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class FoldFolder:
    """The folder of one fold."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name.removeprefix("fold"))

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
            whole = all(isinstance(summary[key], int | float) for key in ("faces", "mae_px", "nme", "seconds", "parameters"))
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
            rows = content["rows"] if "rows" in content else _find_rows(content["pictures"], content["boxes_px"], faces)
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


def _find_rows(pictures: np.ndarray, boxes_px: np.ndarray, faces: Faces) -> np.ndarray:
    """The row (n,) in `faces` of each of these pictures with their boxes (n, 4). Raises ValueError for one that is not there."""
    rows_of: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(faces.pictures, map(tuple, faces.boxes_px.tolist()), strict=True)):
        rows_of.setdefault(key, []).append(row)
    rows = []
    for picture, box in zip(pictures.tolist(), map(tuple, boxes_px.tolist()), strict=True):
        candidates = rows_of.get((picture, box))
        if not candidates:
            raise ValueError(f"{picture} is not in the data set with that box")
        rows.append(candidates.pop(0))
    return np.array(rows, dtype=int)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one experiment."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def split_file(self) -> Path:
        return self.path / "split.csv"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def ensemble_file(self) -> Path:
        return self.path / "ensemble.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def speed_file(self, device_type: str) -> Path:
        return self.path / f"speed-{device_type}.json"

    def fold(self, number: int) -> FoldFolder:
        return FoldFolder(self.path / f"fold{number}")

    @property
    def finished(self) -> list[FoldFolder]:
        """The finished folds, by their numbers."""
        return self._folds_with("summary.json")

    def require_finished(self) -> list[FoldFolder]:
        """The finished folds. Raises UserError if there is none, or where one has predictions but lost its summary: the figures
        of the others alone would be taken for those of the experiment."""
        for fold in self._folds_with("oof.npz"):
            if not fold.finished and not is_locked(fold.path):
                raise UserError(f"{fold.path}: has predictions but no summary.json; run make train again, which finishes it.")
        folds = self.finished
        if not folds:
            raise UserError(f"{self.path}: no finished fold to predict with; run make train with the same settings first.")
        return folds

    def _folds_with(self, file_name: str) -> list[FoldFolder]:
        folders = [path.parent for path in self.path.glob(f"fold*/{file_name}")]
        return sorted((FoldFolder(path) for path in folders if FOLD_NAME.fullmatch(path.name)), key=lambda fold: fold.number)

    def read_config(self, overrides: Sequence[str] = ()) -> Config:
        """The config that this run was made with, but for settings that are no part of it, which overrides may change. Raises
        UserError for other overrides that differ from it."""
        try:
            tree = read_yaml(read_text(self.config_file))
        except (OSError, ValueError):
            raise UserError(
                f"{self.config_file}: cannot be read; restore it, or train under another name with NAME=..."
            ) from None
        try:
            stored = check_config(drop_retired(tree), str(self.config_file))
        except ValueError as error:
            raise UserError(f"{self.config_file}: {error}.") from None
        asked = apply_overrides(stored.model_dump(), overrides, str(self.config_file))
        self.refuse_changes(stored, asked)
        return asked

    def write_config(self, config: Config) -> None:
        write_text(self.config_file, format_config(config))

    def refuse_changes(self, stored: Config, asked: Config) -> None:
        """Raise UserError where the asked config would give another result than the stored one."""
        changed = list_differences(stored, asked)
        if changed:
            raise UserError(
                f"{self.path} was made with another config: {', '.join(changed)}; "
                "name a new experiment with NAME=..., or remove that folder."
            )

    def read_environment(self) -> dict:
        try:
            environment = json.loads(read_text(self.environment_file))
        except (OSError, ValueError):
            environment = None
        # Earlier versions wrote drawn_faces.
        if isinstance(environment, dict) and "drawn_faces" in environment:
            environment["synthetic_faces"] = environment["drawn_faces"]
        whole = isinstance(environment, dict) and {"python", "platform", "versions", "revision"} <= set(environment)
        if not whole or not isinstance(environment.get("synthetic_faces"), bool):
            raise UserError(
                f"{self.environment_file}: cannot be read, so it is not known whether this run saw real faces; restore it."
            )
        return environment

    @property
    def synthetic(self) -> bool:
        """Whether this run learned from synthetic faces."""
        return self.read_environment()["synthetic_faces"]
