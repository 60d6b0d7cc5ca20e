"""The data doctor: checks everything before hours of training for errors, oddities and facts worth knowing."""

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from foldmark.core.config import Config
from foldmark.core.progress import Progress, no_progress
from foldmark.data.lookalikes import inspect_pictures
from foldmark.data.sets import Data
from foldmark.doctor.checks import check_annotations, check_boxes, check_duplicates, check_folds, check_impossible
from foldmark.doctor.finding import UNSAFE, WARNING, Finding, Seen
from foldmark.doctor.leakage import count_leakage
from foldmark.doctor.pictures import check_pictures
from foldmark.doctor.scatter import BoxScatter, measure_box_scatter


@dataclass(frozen=True)
class Diagnosis:
    """All findings; counts: source -> faces in train and test; folds: fold -> faces; odd: training row -> caption of its picture
    on the sheet; scatter: how the boxes sit on the faces, None where no face is possible; leakage: split -> kind -> held-out
    faces that are known from training, empty where there are no folds."""

    findings: list[Finding]
    counts: dict[str, dict[str, int]]
    folds: dict[int, int]
    odd: dict[int, str]
    scatter: BoxScatter | None
    leakage: dict[str, dict[str, int]]

    @property
    def unsafe(self) -> list[str]:
        """The checks that say training is not safe."""
        return [finding.check for finding in self.findings if finding.found and finding.level == UNSAFE]

    @property
    def safe(self) -> bool:
        """Whether training would neither stop (damaged pictures, impossible faces, boxes that do not fit, folds that cannot be
        made) nor learn what is wrong (points that form no face, twins that are none, photos split over folds). Crossed lines,
        blank pictures, look-alikes and leakage are warnings: the score or the face deserves a look."""
        return not self.unsafe

    def to_json(self) -> dict:
        return {
            "safe": self.safe,
            "faces": self.counts,
            "folds": self.folds,
            "box_scatter": asdict(self.scatter) if self.scatter else None,
            "leakage": self.leakage,
            "findings": [
                {
                    "check": finding.check,
                    "level": finding.level if finding.found else "ok",
                    "count": len(finding.found),
                    "of": finding.of,
                    "meaning": finding.meaning,
                    "found": finding.found,
                }
                for finding in self.findings
            ],
        }


def diagnose(data: Data, config: Config, progress: Progress = no_progress) -> Diagnosis:
    """Check all faces and pictures. Raises UserError for a label file that cannot be read at all."""
    train, test = _look(data, progress)
    impossible_finding, impossible = check_impossible(train.faces)
    possible = np.array([row for row in range(len(train)) if row not in impossible], int)
    usable = train.take(possible)
    annotation_findings, odd = check_annotations(usable) if len(usable) else ([], {})
    lookalikes = data.kind.lookalikes
    fold_findings, folds, groups = check_folds(train, config, lookalikes)
    findings = [
        *check_pictures(train, test, config),
        impossible_finding,
        *check_boxes(train.faces, config),
        *annotation_findings,
        *check_duplicates(train, test, folds, lookalikes),
        *fold_findings,
    ]
    if data.kind.test_list and test is None:
        name = data.kind.test_list.file
        meaning = f"put {name} beside the training list; without it there is no CSV, and leakage is not looked for."
        findings.append(Finding("test list missing", WARNING, [name], 1, meaning))
    return Diagnosis(
        findings=findings,
        counts=_count_sources(train, test),
        folds={} if folds is None else dict(sorted(Counter(folds.tolist()).items())),
        odd={**impossible, **{int(possible[row]): text for row, text in odd.items()}},
        scatter=measure_box_scatter(usable.faces) if len(usable) else None,
        leakage={} if folds is None else count_leakage(train.faces, groups, folds, config.folds),
    )


def _look(data: Data, progress: Progress) -> tuple[Seen, Seen | None]:
    parts = [data.labelled, *([data.test] if data.has_test_list else [])]
    paths = [faces.path(row) for faces in parts for row in range(len(faces))]
    pictures = list(dict.fromkeys(paths))
    sights = dict(zip(pictures, inspect_pictures(pictures, progress), strict=True))
    seen = [Seen(faces, [sights[faces.path(row)] for row in range(len(faces))]) for faces in parts]
    return seen[0], seen[1] if len(seen) > 1 else None


def _count_sources(train: Seen, test: Seen | None) -> dict[str, dict[str, int]]:
    counts = {"train": Counter(train.faces.sources), "test": Counter(test.faces.sources if test else [])}
    sources = sorted({*counts["train"], *counts["test"]})
    return {source: {part: counts[part][source] for part in counts} for source in sources}
