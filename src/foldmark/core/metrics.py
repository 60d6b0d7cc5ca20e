"""The metrics: the competition's MAE in original pixels, the NME in percent, and the course's relative MSE.

A new metric is one row of METRICS and its function. From there it is written to every fold's figures and to W&B, and shown in
the terminal, the charts, `make compare`, the report and the parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from foldmark.core.faces import Faces

FAILURE = 8.0  # percent; a face with a larger NME counts as failed
LOOSE_FAILURE = 10.0  # the same, as other papers count
RESAMPLES = 2000  # of the bootstrap


@dataclass(frozen=True)
class Metric:
    """How a metric is computed and shown.

    errors: from points_px (n, k, 2) and their n faces to an array (n, ...) that `reduce` makes one number of. shown:
    "everywhere" is also in sentences, while a fold trains and as curves; "tables" is in all tables, "parts" only in those of
    the course's parts.
    """

    label: str
    unit: str
    digits: int
    errors: Callable[[np.ndarray, Faces], np.ndarray]
    reduce: Callable[[np.ndarray], np.floating] = np.mean
    shown: Literal["everywhere", "tables", "parts"] = "tables"

    def score(self, points_px: np.ndarray, faces: Faces) -> float:
        return float(self.reduce(self.errors(points_px, faces)))

    def of_faces(self, points_px: np.ndarray, faces: Faces) -> np.ndarray:
        """The metric of each face alone (n,)."""
        return self.errors(points_px, faces).reshape(len(points_px), -1).mean(axis=1)

    @property
    def title(self) -> str:
        """A table's heading, such as "NME %"."""
        return f"{self.label} {self.unit}".strip()

    @property
    def axis(self) -> str:
        """An axis's title, such as "NME (%)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def format(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


def coordinate_errors_px(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """|predicted - true| of each coordinate (n, k, 2), in original pixels. Their mean is the competition's metric."""
    return np.abs(points_px - faces.points_px)


def face_nme(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """Normalised mean error of each face, in percent (n,): the mean distance of a point from its truth over the distance
    of the outer eye corners (Sagonas et al. 2013). Points are (n, k, 2) in original pixels."""
    distances = np.linalg.norm(points_px - faces.points_px, axis=2)
    return 100 * distances.mean(axis=1) / faces.eye_distance_px


def face_failure(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """100 for each face (n,) whose NME is over 8 %, 0 for the others."""
    return 100.0 * (face_nme(points_px, faces) > FAILURE)


def face_loose_failure(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """100 for each face (n,) whose NME is over 10 %, 0 for the others."""
    return 100.0 * (face_nme(points_px, faces) > LOOSE_FAILURE)


def face_area(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """Each face's part (n,) of the area under the cumulative error curve up to an NME of 8 %, as a share in percent of the whole
    (AUC, Yang et al. 2015, An Empirical Study of Recent Face Alignment Methods)."""
    return 100 * np.clip(1 - face_nme(points_px, faces) / FAILURE, 0, None)


def face_mse(points_px: np.ndarray, faces: Faces) -> np.ndarray:
    """Mean squared error of each face (n,) in relative units: x over the width and y over the height of its box, which on
    IMM is the whole picture. Points are (n, k, 2) in original pixels."""
    relative = (points_px - faces.points_px) / faces.boxes_px[:, None, 2:]
    return np.square(relative).mean(axis=(1, 2))


def mean_face_px(training: Faces, faces: Faces) -> np.ndarray:
    """The baseline from boxes alone: the mean training face (k, 2), relative to its box, placed in each face's box;
    points_px (n, k, 2)."""
    boxes = training.boxes_px[:, None]
    mean = ((training.points_px - boxes[..., :2]) / boxes[..., 2:]).mean(axis=0)
    return faces.boxes_px[:, None, :2] + mean * faces.boxes_px[:, None, 2:]


METRICS = {
    "mae_px": Metric("MAE", "px", 2, coordinate_errors_px, shown="everywhere"),
    "nme": Metric("NME", "%", 2, face_nme, shown="everywhere"),
    "median_nme": Metric("median NME", "%", 2, face_nme, np.median),
    "failure_rate": Metric("failure rate", "%", 1, face_failure),
    "mse": Metric("relative MSE", "", 5, face_mse, shown="parts"),
}
HEADLINE_METRICS = {key: metric for key, metric in METRICS.items() if metric.shown == "everywhere"}
TABLE_METRICS = {key: metric for key, metric in METRICS.items() if metric.shown != "parts"}
# What papers report of the standard 300-W split, all in percent.
PAPER_METRICS = {
    "nme": METRICS["nme"],
    "failures": Metric(f"failures over {FAILURE:g} %", "", 2, face_failure),
    "loose_failures": Metric(f"failures over {LOOSE_FAILURE:g} %", "", 2, face_loose_failure),
    "area": Metric(f"AUC to {FAILURE:g} %", "", 1, face_area),
}


def compute_scores(points_px: np.ndarray, faces: Faces) -> dict[str, float]:
    """Every metric of METRICS for predictions (n, k, 2) in original pixels of these n faces."""
    return {key: metric.score(points_px, faces) for key, metric in METRICS.items()}


def format_scores(values: Mapping[str, float]) -> str:
    """The headline metrics among these scores in words: "MAE 3.21 px, NME 4.32 %"."""
    return ", ".join(
        f"{metric.label} {metric.format(values[key])} {metric.unit}" for key, metric in HEADLINE_METRICS.items() if key in values
    )


def region_nme(points_px: np.ndarray, faces: Faces) -> dict[str, float]:
    """The NME in percent of each region of the markup."""
    return {name: float(errors.mean()) for name, errors in face_region_nme(points_px, faces).items()}


def face_region_nme(points_px: np.ndarray, faces: Faces) -> dict[str, np.ndarray]:
    """The NME in percent (n,) of each face in each region of the markup."""
    distances = np.linalg.norm(points_px - faces.points_px, axis=2) / faces.eye_distance_px[:, None]
    return {name: 100 * distances[:, points].mean(axis=1) for name, points in faces.markup.regions.items()}


def failures(nme: np.ndarray) -> float:
    """The share of faces, in percent, whose NME (n,) is over 8 %."""
    return float(100 * (nme > FAILURE).mean())


def bootstrap_interval(values: np.ndarray, groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of values (n,) by the bootstrap (Efron 1979). Whole groups are resampled, because the faces
    of one photo are not independent."""
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    draws = _resample_groups(len(sums), seed)
    low, high = np.percentile(draws @ sums / (draws @ counts), [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=2)
def _resample_groups(groups: int, seed: int) -> np.ndarray:
    """How often each group is in each resample (RESAMPLES, groups); kept, because a table asks for many intervals over the same
    groups."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
