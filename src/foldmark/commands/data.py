"""What `make data` does: each set fetched or taken from where the user has it, checked, and put below DATA_ROOT.

A set appears there whole or not at all. Until then everything is in `.make-data`, which the readers pass over and which
the next call goes on from.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import explained, only_process, place_folder, require_space, write_bytes
from foldmark.data.download import Wanted, download, is_url
from foldmark.data.ibug import TEST_XML, TRAIN_XML, read_ibug
from foldmark.data.sets import find_data
from foldmark.data.sources import IBUG, IMM, RECORD, TEST_LIST, Source, known, remember
from foldmark.data.unpack import BadArchive, unpack
from foldmark.show.terminal import say, say_made, show_progress

WORK = ".make-data"


def fetch(data_root: Path, *, ibug: str | None = None, test_list: str | None = None, imm: str | None = None) -> None:
    """Bring the data sets that are not there yet below `data_root`; say where each is, or how to get it.

    Each may be given another address than its published one: a URL, an archive or a folder. Raises UserError for the
    first that cannot be had; the others, and what is fetched of it, are kept.
    """
    addresses = {source: _address(source, given) for source, given in ((IMM, imm), (IBUG, ibug), (TEST_LIST, test_list))}
    with only_process(data_root / WORK, "another `make data` is at work here"):
        # The small one first; the test list needs the folder of iBUG.
        _bring_set(IMM, addresses[IMM], data_root)
        folder = _bring_set(IBUG, addresses[IBUG], data_root)
        _bring_test_list(addresses[TEST_LIST], folder, data_root)
    say(f"Next: make check DATA_ROOT={data_root}" if data_root != Path("data") else "Next: make check")


def _address(source: Source, given: str | None) -> str | None:
    """What the user gave for a source, checked before anything is fetched."""
    if not given or is_url(given):
        return given or None
    path = Path(given).expanduser()
    if not path.exists():
        raise UserError(f"{source.variable}={given}: no such file or folder; give a path, or a URL with http:// or https://.")
    return str(path)


def _bring_set(source: Source, given: str | None, data_root: Path) -> Path | None:
    """The folder of a set below `data_root`, brought there if it is missing; None if nobody knows from where."""
    work, target = data_root / WORK / source.name, data_root / source.folder
    there = _find_whole(source, data_root)
    if there:
        shutil.rmtree(work, ignore_errors=True)
        say(f"{source.title}: is there, {there}" + (_not_replaced(source, there) if given else ""))
        return there
    address = given or source.url
    if address is None:
        say(f"{source.title}: not fetched, its address is not certain; {_how_to_give(source)}")
        return None
    if target.exists() or target.is_symlink():
        raise UserError(f"{target}: is in the way of {source.title}; move it away and run the same command again.")
    with _scratch(work / "unpacked") as unpacked:
        with _fetched(source, address, data_root) as path:
            if path.is_dir():
                _take(source, path, unpacked)
            else:
                say(f"checking and unpacking {address}")
                unpack(path, unpacked, limit=source.limit, name=address, progress=show_progress)
            built = _checked_set(source, unpacked, address)
        place_folder(built, target)
    shutil.rmtree(work, ignore_errors=True)
    say_made(f"{target} ({source.title})")
    return target


def _bring_test_list(given: str | None, ibug_folder: Path, data_root: Path) -> None:
    target = ibug_folder / TEST_XML
    if target.is_file():
        say(f"{TEST_LIST.title}: is there, {target}" + (_not_replaced(TEST_LIST, target) if given else ""))
        return
    if not given:
        say(f"{TEST_LIST.title}: not fetched, its address is not certain; {_how_to_give(TEST_LIST)}")
        return
    with _fetched(TEST_LIST, given, data_root) as path:
        xml = path / TEST_XML if path.is_dir() else path
        with _blamed_on(given, xml):
            _require_pictures(read_ibug(xml, with_points=False), ibug_folder, given)
        write_bytes(target, xml.read_bytes())
    shutil.rmtree(data_root / WORK / TEST_LIST.name, ignore_errors=True)
    say_made(f"{target} ({TEST_LIST.title})")


@contextmanager
def _fetched(source: Source, address: str, data_root: Path) -> Iterator[Path]:
    """The file or folder at an address. What was downloaded is recorded if the body finds it good, and deleted if it is
    a BadArchive; after any other trouble the next call goes on from it."""
    if not is_url(address):
        yield Path(address)
        return
    record = data_root / RECORD
    wanted = Wanted(address, data_root / WORK / source.name, source.limit, known(source, address, record))
    received = download(wanted, f"fetch it in another way and give its path: make data {source.variable}=path", show_progress)
    try:
        yield received.path
    except BadArchive:
        received.path.unlink()
        raise
    remember(address, received.size, received.sha256, record)


def _find_whole(source: Source, data_root: Path) -> Path | None:
    """The published set if it is there. Raises UserError where something else looks like it."""
    found = find_data(data_root, source.name)
    if found is None:
        return None
    if found.synthetic:
        raise UserError(f"{found.folder}: holds synthetic faces of Foldmark; move it away, or give another DATA_ROOT.")
    if source is IBUG and not (found.folder / TRAIN_XML).is_file():
        raise UserError(f"{found.folder}: is there but lacks {TRAIN_XML}; move it away and run the same command again.")
    return found.folder


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A path for a new folder; what a killed call left there is removed first, and what is left of this one at its end."""
    if folder.exists():
        shutil.rmtree(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take(source: Source, folder: Path, unpacked: Path) -> None:
    """Bring a set out of the user's folder: as hard links, which cost nothing, or on another disk as copies. Nothing is written
    there, and the readers need not follow links that lead anywhere."""
    found = find_data(folder, source.name)
    if found is None:
        raise UserError(f"{source.variable}={folder}: does not hold {source.title}; give its folder, or the archive.")
    files = [path for path in found.folder.rglob("*") if path.is_file()]
    if found.folder.stat().st_dev != unpacked.parent.stat().st_dev:
        require_space(unpacked.parent, sum(path.stat().st_size for path in files), f"a copy of {found.folder}")
    try:
        with show_progress("linking or copying", len(files)) as show:
            for count, path in enumerate(files, 1):
                target = unpacked / source.folder / path.relative_to(found.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(path.resolve(), target)
                show(count)
    except OSError as error:
        raise explained(error, unpacked) from error


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except OSError:
        shutil.copy2(path, target)


def _checked_set(source: Source, unpacked: Path, address: str) -> Path:
    """The folder of the set in what was unpacked, after everything in it was found to belong together."""
    found = find_data(unpacked, source.name)
    if found is None or found.synthetic or (source is IBUG and not (found.folder / TRAIN_XML).is_file()):
        raise BadArchive(f"{address}: does not hold {source.title}; {_how_to_give(source)}")
    with _blamed_on(address, found.folder):
        _require_pictures(found.train, found.folder, address)
    return found.folder


def _require_pictures(faces: Faces, folder: Path, name: str) -> None:
    missing = [picture for picture in faces.pictures if not (folder / picture).is_file()]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(faces)} pictures are missing, such as {missing[0]}; "
            "get it whole, and labels and pictures of the same set."
        )


@contextmanager
def _blamed_on(address: str, path: Path) -> Iterator[None]:
    """Errors about a file that will not be kept name the address that it came from."""
    try:
        yield
    except UserError as error:
        raise BadArchive(str(error).replace(str(path), address)) from None


def _how_to_give(source: Source) -> str:
    return f"{source.advice}, give it as a path or URL: make data {source.variable}=..."


def _not_replaced(source: Source, there: Path) -> str:
    return f" ({source.variable} is not used; to replace it, move {there} away first)"
