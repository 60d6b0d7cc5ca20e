"""Where the faces come from: the real set below DATA_ROOT, or faces that Foldmark draws itself."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foldmark.drawn import write_drawn_faces
from foldmark.errors import UserError
from foldmark.faces import TEST_XML, TRAIN_XML, Faces, find_ibug, read_ibug

DEFAULT_ROOT = Path("data")
DRAWN_TRAIN_FACES, DRAWN_TEST_FACES, DRAWN_SEED = 400, 50, 0

BANNER = """\
*******************************************************************************************
  NO REAL FACES under {root}: these are faces that FOLDMARK DRAWS ITSELF (the first time,
  that takes a minute).
  Everything works as with real ones, but the figures say nothing about real faces, and the
  predictions are never uploaded. The real set, iBUG 300-W (1.7 GB, research use only):
    http://dlib.net/files/data/ibug_300W_large_face_landmark_dataset.tar.gz
  Unpack it into data/ with the competition's labels_ibug_300W_test_parsed.xml beside
  labels_ibug_300W_train.xml, or point to it: make train DATA_ROOT=/where/it/is
*******************************************************************************************"""


@dataclass(frozen=True)
class Data:
    """The faces with points to train on, and where the list of faces to predict is."""

    train_xml: Path
    test_xml: Path
    drawn: bool

    @cached_property
    def train(self) -> Faces:
        return read_ibug(self.train_xml, with_points=True)

    @cached_property
    def test(self) -> Faces:
        return read_ibug(self.test_xml, with_points=False)


def find_data(root: Path) -> Data | None:
    """The set in iBUG layout below `root`, None where there is none. One that Foldmark drew is known by its folder.

    Raises UserError for a folder that does not exist, unless it is the default.
    """
    if root != DEFAULT_ROOT and not root.is_dir():
        raise UserError(f"DATA_ROOT={root}: no such folder; give the folder that holds the iBUG archive.")
    folder = find_ibug(root)
    return Data(folder / TRAIN_XML, folder / TEST_XML, drawn=(folder / "drawn").is_dir()) if folder else None


def drawn_data(cache: Path) -> Data:
    """The drawn set, which is written into `cache` the first time (about a minute)."""
    home = cache / f"drawn-{DRAWN_TRAIN_FACES}-{DRAWN_TEST_FACES}-{DRAWN_SEED}"
    folder = write_drawn_faces(home, train_faces=DRAWN_TRAIN_FACES, test_faces=DRAWN_TEST_FACES, seed=DRAWN_SEED)
    return Data(folder / TRAIN_XML, folder / TEST_XML, drawn=True)
