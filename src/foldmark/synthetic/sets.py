"""The data that a command works with: the real set where it is, synthetic faces in its layout otherwise."""

from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.progress import Progress, no_progress
from foldmark.data.sets import Data, find_data, pick_set
from foldmark.synthetic.ibug import write_synthetic_faces
from foldmark.synthetic.imm import write_synthetic_imm

TRAIN_FACES, TEST_FACES, SEED = 400, 50, 0

WRITERS = {
    "ibug": lambda folder, progress: write_synthetic_faces(
        folder, train_faces=TRAIN_FACES, test_faces=TEST_FACES, seed=SEED, progress=progress
    ),
    "imm": lambda folder, progress: write_synthetic_imm(folder, seed=SEED, progress=progress),
}

NOTICE = """\
*******************************************************************************************
  NO REAL FACES under {root}: these are SYNTHETIC FACES that Foldmark makes (the first time
  takes about a minute). All commands work with them, but the figures say nothing about real
  faces, and the predictions are never uploaded. {how_to_get}
*******************************************************************************************"""


def load_data(root: Path, kind: str, cache: Path, progress: Progress = no_progress) -> Data:
    """The real set of this kind below `root`, or else the synthetic one; `Data.synthetic` is true for it. Raises UserError for
    an unknown kind, and where there is neither."""
    return find_data(root, kind) or make_synthetic_data(kind, cache, progress)


def make_synthetic_data(kind: str, cache: Path, progress: Progress = no_progress) -> Data:
    """The synthetic set of this kind, which is written into `cache` the first time (about a minute)."""
    if kind not in WRITERS:
        source = pick_set(kind).source
        raise UserError(
            f"{source.title}: not found, and Foldmark makes no synthetic faces for it; {source.advice}, and DATA_ROOT=... names "
            "the folder that holds it."
        )
    home = cache / f"synthetic-{TRAIN_FACES}-{TEST_FACES}-{SEED}"
    return Data(kind, WRITERS[kind](home, progress), synthetic=True)


def synthetic_notice(root: Path, data: Data) -> str:
    """The banner, in several lines, of a command that works with synthetic faces."""
    return NOTICE.format(root=root, how_to_get=data.kind.how_to_get)
