"""A check of the doctor and its findings."""

from dataclasses import dataclass

import numpy as np

from foldmark.core.faces import Faces
from foldmark.data.lookalikes import Sight

# What a finding means for training: it would stop or be wrong; the score or a file deserves a look; nothing, by itself.
UNSAFE, WARNING, NOTE = "unsafe", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One check and its result. level: what it means if there is anything in `found`, one text a face, picture or pair.
    of: how many were looked at. meaning: what follows from it, and the fix."""

    check: str
    level: str
    found: list[str]
    of: int
    meaning: str


@dataclass(frozen=True)
class Seen:
    """Faces (n) and what their pictures look like (n)."""

    faces: Faces
    sights: list[Sight]

    def __len__(self) -> int:
        return len(self.faces)

    def take(self, rows: np.ndarray) -> "Seen":
        return Seen(self.faces.take(rows), [self.sights[row] for row in rows])


def list_pictures(faces: Faces, mask: np.ndarray) -> list[str]:
    """The pictures of the faces that a mask (n,) marks."""
    return [faces.pictures[row] for row in np.flatnonzero(mask)]


def list_reasons(faces: Faces, reasons: dict[int, str]) -> list[str]:
    """`picture: reason` of each row."""
    return [f"{faces.pictures[row]}: {reason}" for row, reason in reasons.items()]
