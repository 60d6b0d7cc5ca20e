"""Archives of others: unpacked exactly, or refused without a file outside the folder."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldmark.core.errors import UserError
from foldmark.data import unpack as unpack_module
from foldmark.data.unpack import BadArchive, unpack

FILES = {"set/labels.xml": b"<dataset/>" * 50, "set/afw/1.jpg": bytes(range(256)) * 9, "set/afw/empty.jpg": b""}
LIMIT = 2**20


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        for member, content in members:
            if member.isreg():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_bytes(*members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return packed.getvalue()


def zip_link(name: str, target: str) -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zip_bytes((info, target.encode()))


def whole_tar(mode: str = "w:gz") -> bytes:
    folders = [(member(name, tarfile.DIRTYPE), b"") for name in ("./", "./set", "./set/afw/", "./set/nothing")]
    return tar_bytes(*folders, *[(member(f"./{name}"), content) for name, content in FILES.items()], mode=mode)


def whole_zip() -> bytes:
    return zip_bytes(("set/", b""), *FILES.items())


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(tmp_path: Path, content: bytes, limit: int = LIMIT) -> dict[str, bytes]:
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    unpack(archive, tmp_path / "out", limit=limit, name="the archive")
    return files_below(tmp_path / "out")


@pytest.mark.parametrize(
    "content", [whole_tar(), whole_tar("w"), whole_zip(), zip_bytes(*FILES.items(), method=zipfile.ZIP_STORED)]
)
def test_every_file_is_unpacked_as_it_was(tmp_path, content):
    assert unpacked(tmp_path, content) == FILES


def test_the_archive_does_not_choose_permissions(tmp_path):
    program = member("a")
    program.mode = 0o6777
    unpacked(tmp_path, tar_bytes((program, b"a")))
    assert (tmp_path / "out/a").stat().st_mode & 0o7111 == 0


GOOD = (member("good.jpg"), b"good")
BAD_NAMES = ["../evil", "a/../../evil", "/tmp/evil", "..", "a\\..\\evil", "C:/evil", "C:evil", "a" * 300, "a/" * 600 + "a"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_no_name_in_a_tar_leaves_the_folder(tmp_path, name, kind):
    assert_refused(tmp_path, tar_bytes(GOOD, (member(name, kind), b"")), "leaves the folder|no usable name")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_in_a_zip_leaves_the_folder(tmp_path, name):
    assert_refused(tmp_path, zip_bytes(("good.jpg", b"good"), (name, b"evil")), "leaves the folder|no usable name")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("target", ["/etc", "..", "good.jpg"])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, target):
    assert_refused(
        tmp_path, tar_bytes(GOOD, (member("out", kind, target), b""), (member("out/evil"), b"evil")), "link or a device"
    )


def test_links_in_a_zip_are_refused(tmp_path):
    assert_refused(tmp_path, zip_link("out", "/etc"), "link or a device")


def assert_refused(tmp_path: Path, content: bytes, words: str, limit: int = LIMIT) -> None:
    """Nothing is written at all, in the folder or elsewhere."""
    with pytest.raises(BadArchive, match=words) as error:
        unpacked(tmp_path, content, limit)
    assert str(error.value).startswith("the archive: ")
    assert list(tmp_path.rglob("*")) == [tmp_path / "archive"]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("content", [tar_bytes((member("a"), bytes(2 * LIMIT))), zip_bytes(("a", bytes(2 * LIMIT)))])
def test_a_small_archive_with_much_in_it_is_refused(tmp_path, content):
    assert len(content) < LIMIT / 100
    assert_refused(tmp_path, content, "more than 1 MB")


def test_many_small_files_count_together(tmp_path):
    many = [(member(f"{index}"), bytes(LIMIT // 8)) for index in range(9)]
    assert_refused(tmp_path, tar_bytes(*many), "more than 1 MB")
    assert_refused(tmp_path, zip_bytes(*[(info.name, content) for info, content in many]), "more than 1 MB")


def test_a_header_is_not_read_into_memory_whatever_its_length(tmp_path):
    """tarfile reads a GNU long name whole; here is one of 64 MB, and one that claims to be 4 GB."""
    for length in (2**26, 2**32):
        header = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
        header.size = length
        content = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"a" * 2**26, 1)
        assert_refused(tmp_path, content, "header of more than a megabyte", limit=2**33)


def test_endless_padding_is_refused(tmp_path):
    assert_refused(tmp_path, gzip.compress(gzip.decompress(whole_tar()) + bytes(4 * LIMIT)), "more than 1 MB")


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack_module, "MOST_ENTRIES", 2)
    assert_refused(tmp_path, whole_tar(), "more than 2 files")
    assert_refused(tmp_path, whole_zip(), "more than 2 files")


@pytest.mark.parametrize("second", ["a", "a/b", "./a", "a//b"])
def test_a_name_that_is_there_twice_is_refused(tmp_path, second):
    with pytest.raises(BadArchive, match="there twice"):
        unpacked(tmp_path, tar_bytes((member("a"), b"1"), (member(second), b"2")))
    assert files_below(tmp_path / "out") == {"a": b"1"}


def test_a_sparse_file_is_refused(tmp_path):
    hole = member("hole", tarfile.GNUTYPE_SPARSE)
    hole.size = 0
    header = bytearray(hole.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 2**40
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    with pytest.raises(BadArchive):
        unpacked(tmp_path, gzip.compress(bytes(header) + bytes(1024)))
    assert not (tmp_path / "out").exists()


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    content = bytearray(zip_bytes(("a", bytes(5000))))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(BadArchive):
        unpacked(tmp_path, bytes(content))
    assert sum(len(content) for content in files_below(tmp_path).values()) < 5000


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>please log in</html>", b"\x1f\x8b", b"PK\x03\x04", b"Rar!", gzip.compress(b"x" * 5000)],
    ids=["nothing", "a web page", "gzip's first bytes", "zip's first bytes", "rar", "gzip of no tar"],
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    assert_refused(tmp_path, content, "refused|damaged")


@pytest.mark.parametrize("content", [whole_tar(), whole_zip()], ids=["tar", "zip"])
@pytest.mark.parametrize("lost", [1, 9, 30, 400])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, content, lost):
    assert_refused(tmp_path, content[:-lost], "damaged")


def test_a_zip_with_a_password_is_refused(tmp_path):
    content = bytearray(whole_zip())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.index(mark, content.index(b"labels.xml") - 50 if mark == b"PK\x03\x04" else 0)
        while start >= 0:
            content[start + at] |= 1
            start = content.find(mark, start + 1)
    with pytest.raises(BadArchive, match="password|encrypted"):
        unpacked(tmp_path, bytes(content))


@given(data=st.data(), packed=st.sampled_from([whole_tar(), whole_zip(), whole_tar("w")]))
@settings(max_examples=300, deadline=None)
def test_a_damaged_archive_is_unpacked_right_or_refused(tmp_path_factory, data, packed):
    at = data.draw(st.integers(0, len(packed)))
    end = data.draw(st.integers(at, min(len(packed), at + 20)))
    damaged = packed[:at] + data.draw(st.binary(max_size=20)) + packed[end:]
    folder = tmp_path_factory.mktemp("damaged")
    try:
        files = unpacked(folder, damaged)
    except BadArchive:
        return
    finally:
        assert {path.name for path in folder.iterdir()} <= {"archive", "out"}
    if packed.startswith(b"\x1f\x8b"):  # a zip's names and a plain tar's contents have no check sum
        assert files == FILES


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_archive_that_may_not_be_read_is_a_sentence(tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(whole_tar())
    archive.chmod(0)
    with pytest.raises(UserError, match="archive"):
        unpack(archive, tmp_path / "out", limit=LIMIT, name="the archive")
