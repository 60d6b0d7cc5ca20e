"""Where the faces come from: a real set below DATA_ROOT, or synthetic faces."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.data.ibug import TEST_XML, TRAIN_XML, find_ibug, read_ibug
from foldmark.data.imm import SYNTHETIC_NOTE, find_imm, read_imm
from foldmark.synthetic import write_synthetic_faces, write_synthetic_imm

DEFAULT_ROOT = Path("data")
SYNTHETIC_TRAIN_FACES, SYNTHETIC_TEST_FACES, SYNTHETIC_SEED = 400, 50, 0

BANNER = """\
*******************************************************************************************
  NO REAL FACES under {root}: these are SYNTHETIC FACES that Foldmark generates (the first time,
  that takes a minute).
  Everything works as with real ones, but the figures say nothing about real faces, and the
  predictions are never uploaded. {how}
*******************************************************************************************"""

HOW_TO_GET = {
    "ibug": """The real set, iBUG 300-W (1.7 GB, research use only):
    make data TEST_LIST=labels_ibug_300W_test_parsed.xml
  with the test list from the competition's page; or point to what you have:
    make train DATA_ROOT=/where/it/is""",
    "imm": """The real set is the IMM Face Database
  (240 pictures, free for education and research): the course's page links to it.
    make data IMM=path-or-url
  brings it here; or point to what you have: DATA_ROOT=/where/it/is""",
}


@dataclass(frozen=True)
class Data:
    """The faces with points to train on and, for the competition, the list of faces to predict."""

    set: str  # ibug or imm
    folder: Path
    synthetic: bool

    @cached_property
    def train(self) -> Faces:
        return read_imm(self.folder) if self.set == "imm" else read_ibug(self.folder / TRAIN_XML, with_points=True)

    @cached_property
    def test(self) -> Faces:
        if self.set == "imm":
            raise UserError(f"{self.folder}: IMM has no test list, so there is no competition file to write for it.")
        return read_ibug(self.folder / TEST_XML, with_points=False)


def find_data(root: Path, kind: str) -> Data | None:
    """The published set of this kind below `root`, None where there is none. One that Foldmark generates is known by what
    stands in its folder.

    Raises UserError for a folder that does not exist, unless it is the default.
    """
    if root != DEFAULT_ROOT and not root.is_dir():
        raise UserError(f"DATA_ROOT={root}: no such folder; give the folder that holds the data set.")
    if kind == "imm":
        folder = find_imm(root)
        return Data(kind, folder, synthetic=(folder / SYNTHETIC_NOTE).is_file()) if folder else None
    folder = find_ibug(root)
    return Data(kind, folder, synthetic=(folder / "synthetic").is_dir()) if folder else None


def synthetic_data(cache: Path, kind: str) -> Data:
    """The synthetic set of this kind, which is written into `cache` the first time (about a minute)."""
    home = cache / f"synthetic-{SYNTHETIC_TRAIN_FACES}-{SYNTHETIC_TEST_FACES}-{SYNTHETIC_SEED}"
    if kind == "imm":
        return Data(kind, write_synthetic_imm(home, seed=SYNTHETIC_SEED), synthetic=True)
    folder = write_synthetic_faces(home, train_faces=SYNTHETIC_TRAIN_FACES, test_faces=SYNTHETIC_TEST_FACES, seed=SYNTHETIC_SEED)
    return Data(kind, folder, synthetic=True)
