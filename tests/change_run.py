"""Changing what a finished run predicted, as another training would have: its files still belong together."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from foldmark.core.faces import Faces
from foldmark.core.files import file_sha256
from foldmark.core.metrics import compute_scores
from foldmark.models.checkpoint import to_bytes
from foldmark.runs.run_folder import RunFolder


def change_oof(run: Path, faces: Faces, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the OOF predictions (n, k, 2) of each finished fold by what `change` makes of them. faces: those of the run."""
    for fold in RunFolder(run).finished:
        rows, prediction = fold.read_oof(faces)
        held_out, points_px = faces.take(rows), change(prediction.points_px)
        fold.write_oof(held_out, replace(prediction, points_px=points_px))
        summary = {**fold.require_summary(), **compute_scores(points_px, held_out)}
        if "files" in summary:
            summary["files"][fold.oof_file.name] = file_sha256(fold.oof_file)
        fold.summary_file.write_text(json.dumps(summary))


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a state as a checkpoint, as someone who exchanges the file would."""
    path.write_bytes(to_bytes(state))
