"""The mean training face laid into each box: what knowing only the boxes gives, and what a model has to beat."""

import numpy as np

from foldmark.core.metrics import mean_face_px, scores
from foldmark.runs.run import Run


def mean_face_scores(run: Run, folds: list[int]) -> dict[str, float]:
    """The figures of the mean face on the held-out faces of these folds."""
    rows = [run.held_out_rows(fold) for fold in folds]
    points_px = [
        mean_face_px(run.faces.take(run.training_rows(fold)), run.faces.take(held_out))
        for fold, held_out in zip(folds, rows, strict=True)
    ]
    return scores(np.concatenate(points_px), run.faces.take(np.concatenate(rows)))
