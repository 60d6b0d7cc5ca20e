"""`make data`: each set fetched or taken from where the user has it, checked, and put below DATA_ROOT.

A set appears there whole or not at all. Until then everything is in `.make-data`, which the readers skip and which the next
call resumes from.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.core.files import expand_user, explain_error, lock_folder, place_folder, read_bytes, require_space, write_bytes
from foldmark.data.download import RECORD, Wanted, download, is_url, recorded, remember
from foldmark.data.sets import DEFAULT_ROOT, SETS, CompetitionList, DataSet, Source, find_data
from foldmark.data.unpack import BadArchive, unpack
from foldmark.show.terminal import make_command, say, say_made, show_progress
from foldmark.synthetic.ibug import write_synthetic_faces

WORK = ".make-data"


def fetch(data_root: Path, sources: Mapping[str, str | None]) -> None:
    """Bring the data sets that are not there yet below `data_root`; say where each is, or how to get it.

    sources: by a source's variable (IBUG, TEST_LIST, IMM), another address than the published one: a URL, an archive or a folder.
    Raises UserError for the first that cannot be had; the others, and what is fetched of it, are kept.
    """
    addresses = {variable: _checked_address(variable, address) for variable, address in sources.items() if address}
    with lock_folder(data_root / WORK, "another `make data` is at work here"):
        # The small ones first.
        for name in sorted(SETS, key=lambda name: SETS[name].source.limit):
            kind = SETS[name]
            folder = _bring_set(name, addresses.get(kind.source.variable), data_root)
            if folder and kind.test_list:
                _bring_test_list(kind.test_list, addresses.get(kind.test_list.source.variable), folder, data_root)
    elsewhere = str(data_root) if data_root.absolute() != DEFAULT_ROOT.absolute() else ""
    say(f"Next: {make_command('check', {'DATA_ROOT': elsewhere})}")


def _checked_address(variable: str, address: str) -> str:
    """The user's address of a source, checked before anything is fetched."""
    if is_url(address):
        return address
    path = expand_user(Path(address), variable)
    try:
        there, usable = path.exists(), path.is_dir() or path.is_file()
    except OSError as error:
        raise UserError(f"{variable}={address}: cannot be read ({error.strerror}); give a path or a URL.") from None
    if not there:
        raise UserError(f"{variable}={address}: no such file or folder; give a path, or a URL with http:// or https://.")
    if not usable:
        raise UserError(f"{variable}={address}: is a pipe or device; save what comes from it to a file, and give its path.")
    return str(path)


def _bring_set(name: str, given: str | None, data_root: Path) -> Path | None:
    """The folder of a set below `data_root`, brought there if it is missing; None if its address is not known."""
    kind, source = SETS[name], SETS[name].source
    work, target = data_root / WORK / name, data_root / kind.folder
    there = _find_whole(name, data_root)
    if there:
        shutil.rmtree(work, ignore_errors=True)
        say(f"{source.title}: is there, {there}" + (_not_replaced(source, there) if given else ""))
        return there
    address = given or source.url
    if address is None:
        say(f"{source.title}: not fetched, its address is not certain; {_how_to_give(source)}")
        return None
    _refuse_occupied(target, source)
    with _scratch(work / "unpacked") as unpacked:
        with _fetched(source, address, work, data_root / RECORD) as path:
            if path.is_dir():
                _take(name, path, unpacked)
            else:
                say(f"checking and unpacking {address}")
                unpack(path, unpacked, limit=source.limit, name=address, progress=show_progress)
            built = _checked_set(name, unpacked, address)
        place_folder(built, target)
    shutil.rmtree(work, ignore_errors=True)
    say_made(f"{target} ({source.title})")
    return target


def _bring_test_list(test_list: CompetitionList, given: str | None, folder: Path, data_root: Path) -> None:
    source, target, work = test_list.source, folder / test_list.file, data_root / WORK / "test-list"
    if target.is_file():
        test_list.read(folder)
        say(f"{source.title}: is there, {target}" + (_not_replaced(source, target) if given else ""))
        return
    _refuse_occupied(target, source)
    if not given:
        say(f"{source.title}: not fetched, its address is not certain; {_how_to_give(source)}")
        return
    with _scratch(work / "unpacked") as scratch, _fetched(source, given, work, data_root / RECORD) as path:
        content = _read(path / test_list.file if path.is_dir() else path, source)
        # Work on a copy, so that exactly the checked bytes are installed.
        write_bytes(scratch / test_list.file, content)
        with _blamed_on(given, scratch / test_list.file):
            _require_pictures(test_list.read(scratch), folder, given)
        write_bytes(target, content)
    shutil.rmtree(work, ignore_errors=True)
    say_made(f"{target} ({source.title})")


def _read(file: Path, source: Source) -> bytes:
    try:
        return read_bytes(file, source.limit)
    except OSError as error:
        raise UserError(f"{source.variable}={file}: cannot be read ({error.strerror}).") from None


def _refuse_occupied(target: Path, source: Source) -> None:
    if target.exists() or target.is_symlink():
        raise UserError(f"{target}: is in the way of {source.title}; move it away and run the same command again.")


@contextmanager
def _fetched(source: Source, address: str, work: Path, record: Path) -> Iterator[Path]:
    """The file or folder at an address. What was downloaded is recorded if the body finds it good, and deleted if it is
    a BadArchive; after any other error the next call resumes it."""
    if not is_url(address):
        yield Path(address)
        return
    wanted = Wanted(address, work, source.limit, recorded(address, record))
    received = download(wanted, f"fetch it in another way and give its path: make data {source.variable}=path", show_progress)
    try:
        yield received.path
    except BadArchive:
        received.path.unlink()
        raise
    remember(address, received, record)


def _find_whole(name: str, data_root: Path) -> Path | None:
    """The published set if it is there. Raises UserError where something else looks like it."""
    found = find_data(data_root, name)
    if found is None:
        return None
    if found.synthetic:
        raise UserError(f"{found.folder}: holds synthetic faces of Foldmark; move it away, or give another DATA_ROOT.")
    if _lacks_labels(found.kind, found.folder):
        raise UserError(
            f"{found.folder}: is there but lacks {found.kind.label_file}; move it away and run the same command again."
        )
    return found.folder


def _lacks_labels(kind: DataSet, folder: Path) -> bool:
    return kind.label_file is not None and not (folder / kind.label_file).is_file()


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


def _take(name: str, folder: Path, unpacked: Path) -> None:
    """Bring a set out of the user's folder: as hard links, which cost nothing, or on another disk as copies. Nothing is written
    there, and the readers need not follow links that lead anywhere."""
    kind, found = SETS[name], find_data(folder, name)
    if found is None:
        raise UserError(f"{kind.source.variable}={folder}: does not hold {kind.source.title}; give its folder, or the archive.")
    files = [path for path in found.folder.rglob("*") if path.is_file()]
    if found.folder.stat().st_dev != unpacked.parent.stat().st_dev:
        require_space(unpacked.parent, sum(path.stat().st_size for path in files), f"a copy of {found.folder}")
    try:
        with show_progress("linking or copying", len(files)) as done:
            for count, path in enumerate(files, 1):
                target = unpacked / kind.folder / path.relative_to(found.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(path.resolve(), target)
                done(count)
    except OSError as error:
        raise explain_error(error, unpacked) from error


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except OSError:
        shutil.copy2(path, target)


def _checked_set(name: str, unpacked: Path, address: str) -> Path:
    """The folder of the set in what was unpacked, after everything in it was found to belong together."""
    found = find_data(unpacked, name)
    if found is None or found.synthetic or _lacks_labels(found.kind, found.folder):
        raise BadArchive(f"{address}: does not hold {SETS[name].source.title}; {_how_to_give(SETS[name].source)}")
    with _blamed_on(address, found.folder):
        _require_pictures(found.labelled, found.folder, address)
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


def write_synthetic(folder: Path, train_faces: int, test_faces: int, seed: int) -> None:
    """Write synthetic faces with exact points, in the layout of the iBUG archive."""
    say_made(write_synthetic_faces(folder, train_faces=train_faces, test_faces=test_faces, seed=seed))
