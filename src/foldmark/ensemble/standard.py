"""The standard split of 300-W (`folds.split: 300w`): which of its test faces are judged, and what papers report of it."""

from dataclasses import dataclass

import numpy as np

from foldmark.core.faces import Faces
from foldmark.core.metrics import METRICS, face_nme
from foldmark.data.ibug import STANDARD_TEST_FACES, is_mirror, standard_part
from foldmark.ensemble.oof import Oof


@dataclass(frozen=True)
class PublishedResult:
    """NMEs by the outer eye corners in percent, as public listings of results give them (None for what they do not list), and the
    paper that they cite."""

    method: str
    common: float | None
    challenge: float | None
    full: float
    source: str


PUBLISHED_RESULTS = [
    PublishedResult("PIPNet, ResNet-18 from ImageNet weights", None, None, 3.36, "Jin et al. 2021, IJCV, arXiv 2003.03771"),
    PublishedResult("DTLD, ResNet-18", 2.59, 4.50, 2.96, "Li et al. 2022, CVPR, arXiv 2208.10808"),
    PublishedResult("ADNet", 2.53, 4.58, 2.93, "Huang et al. 2021, ICCV, arXiv 2109.05721"),
    PublishedResult("STAR", 2.52, 4.32, 2.87, "Zhou et al. 2023, CVPR, arXiv 2306.02763"),
]


@dataclass(frozen=True)
class JudgedPart:
    """A part of the standard test faces: the rows (m,) of its faces in the OOF predictions, and how many the split has."""

    name: str
    rows: np.ndarray
    of: int


def judge_parts(oof: Oof) -> list[JudgedPart]:
    """The parts common and challenge of the standard test faces, without mirror twins, in the OOF predictions of a run with that
    split, and the full set: only where faces of both are judged, because those of challenge are much harder."""
    faces = np.array([None if is_mirror(picture) else standard_part(picture) for picture in oof.faces.pictures])
    parts = [JudgedPart(name, np.flatnonzero(faces == name), count) for name, count in STANDARD_TEST_FACES.items()]
    if not all(len(part.rows) for part in parts):
        return parts
    full = np.concatenate([part.rows for part in parts])
    return [*parts, JudgedPart("full", np.sort(full), sum(part.of for part in parts))]


def list_unlabelled(test: Faces) -> list[str]:
    """The standard test faces that the data has without labels, in the competition's test list."""
    return [picture for picture in test.pictures if standard_part(picture) and not is_mirror(picture)]


def describe_parts(oof: Oof) -> str:
    """The NME of each part in words, with how many of its faces are judged."""
    parts, said = judge_parts(oof), []
    for part in parts:
        nme = face_nme(oof.points_px[part.rows], oof.faces.take(part.rows))
        figure = f"NME {METRICS['nme'].format(float(nme.mean()))} %, " if len(nme) else ""
        said.append(f"{part.name} {figure}{len(nme)} of {part.of} faces judged")
    if parts[-1].name != "full":
        said.append("full set not judged, because a part is not")
    return "; ".join(said)
