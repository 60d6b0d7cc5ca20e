"""The data sets that can be trained on, a row each. Adding one takes its reader, a row here and a config."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import MEGABYTE
from foldmark.core.markup import IBUG68, IMM58, Markup
from foldmark.core.tables import pick
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, find_ibug, read_ibug
from foldmark.data.imm import IMM_FOLDER, SYNTHETIC_NOTE, find_imm, read_imm
from foldmark.data.labels import refuse_impossible

DEFAULT_ROOT = Path("data")


@dataclass(frozen=True)
class Source:
    """Where one thing is published.

    variable: how `make data` lets the user give another address, a path or a URL. url: None where no address is certain; `advice`
    then says where to look. limit: bytes that neither the file nor what is unpacked from it may exceed.
    """

    variable: str
    title: str
    url: str | None
    limit: int
    advice: str


@dataclass(frozen=True)
class CompetitionList:
    """The faces that a competition wants predicted: the file in the set's folder, its reader and its source."""

    file: str
    read: Callable[[Path], Faces]
    source: Source


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    find: its folder below a root, None where it is not there. read: all its faces, with points, from that folder. label_file:
    the file without which the folder is not the whole set. folder: its name below DATA_ROOT when `make data` brings it.
    lookalikes: photos that look alike are the same photo; where people sit before one wall, only equal bytes count.
    terms: on which it may be used, and so what learned from it. how_to_get: advice for a user who does not have it.
    """

    markup: Markup
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Faces]
    test_list: CompetitionList | None
    label_file: str | None
    folder: str
    lookalikes: bool
    source: Source
    terms: str
    how_to_get: str


SETS = {
    "ibug": DataSet(
        markup=IBUG68,
        find=find_ibug,
        read=lambda folder: read_ibug(folder / TRAIN_XML, with_points=True),
        test_list=CompetitionList(
            file=TEST_XML,
            read=lambda folder: read_ibug(folder / TEST_XML, with_points=False),
            source=Source(
                variable="TEST_LIST",
                title="the competition's test list",
                url=None,
                limit=64 * MEGABYTE,
                advice="the competition's data page on Kaggle has it",
            ),
        ),
        label_file=TRAIN_XML,
        folder=IBUG_FOLDER,
        lookalikes=True,
        source=Source(
            variable="IBUG",
            title="iBUG 300-W",
            url="http://dlib.net/files/data/ibug_300W_large_face_landmark_dataset.tar.gz",
            limit=8192 * MEGABYTE,
            advice="it is published on dlib.net",
        ),
        terms="learned from iBUG 300-W: non-commercial research and education only",
        how_to_get="""The real set is iBUG 300-W (1.7 GB, research use only):
    make data TEST_LIST=labels_ibug_300W_test_parsed.xml
  fetches it and adds the test list from the competition's page. If you have it already:
    make train DATA_ROOT=/folder/that/holds/it""",
    ),
    "imm": DataSet(
        markup=IMM58,
        find=find_imm,
        read=read_imm,
        test_list=None,
        label_file=None,
        folder=IMM_FOLDER,
        lookalikes=False,
        source=Source(
            variable="IMM",
            title="the IMM Face Database",
            url=None,
            limit=1024 * MEGABYTE,
            advice="the course's page links to it",
        ),
        terms="learned from the IMM Face Database: free for education and research",
        how_to_get="""The real set is the IMM Face Database (240 pictures, free for education and research); the course's
  page links to it:
    make data IMM=path-or-URL
  If you have it already: DATA_ROOT=/folder/that/holds/it""",
    ),
}


@dataclass(frozen=True)
class Data:
    """A data set that was found: its name in SETS, its folder, and whether Foldmark made its faces."""

    set: str
    folder: Path
    synthetic: bool

    @property
    def kind(self) -> DataSet:
        return pick_set(self.set)

    @cached_property
    def train(self) -> Faces:
        """The faces with points to train on. Raises UserError for faces that cannot be right."""
        refuse_impossible(self.labelled, self.folder)
        return self.labelled

    @cached_property
    def labelled(self) -> Faces:
        """All faces with points, also those that cannot be right."""
        return self.kind.read(self.folder)

    @cached_property
    def test(self) -> Faces:
        """The list of faces to predict. Raises UserError where the set has none."""
        if self.kind.test_list is None:
            raise UserError(
                f"{self.folder}: {self.kind.source.title} has no test list, so there is no competition file to write for it."
            )
        return self.kind.test_list.read(self.folder)

    @property
    def has_test_list(self) -> bool:
        return self.kind.test_list is not None and (self.folder / self.kind.test_list.file).exists()


def pick_set(name: str) -> DataSet:
    """The row of SETS that `data.set` names. Raises UserError that names the nearest for an unknown one."""
    return pick(SETS, name, "data.set")


def find_data(root: Path, name: str) -> Data | None:
    """The data set of this name below `root`, None where there is none. Synthetic ones are known by what is in their folder.

    Raises UserError for an unknown name, and for a root that does not exist unless it is the default.
    """
    kind = pick_set(name)
    try:
        if not root.is_dir() and root.absolute() != DEFAULT_ROOT.absolute():
            raise UserError(f"DATA_ROOT={root}: no such folder; give the folder that holds the data set.")
        folder = kind.find(root)
        if folder is None:
            return None
        return Data(name, folder, synthetic=(folder / SYNTHETIC_NOTE).is_file() or (folder / "synthetic").is_dir())
    except OSError as error:
        raise UserError(f"DATA_ROOT={root}: cannot be read ({error.strerror}); give a folder of your own.") from None
