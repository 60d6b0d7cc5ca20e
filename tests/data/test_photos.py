"""Which photos the user means, and the boxes beside them: read for what they say, or refused in a sentence; nothing hangs."""

import os

import numpy as np
import pytest

from foldmark.core.errors import UserError
from foldmark.data.photos import find_photos

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and links as POSIX systems have them")


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "one.jpg").write_bytes(b"")
    return tmp_path / "one.jpg"


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_boxes_and_lists_are_read_with_and_without_a_byte_order_mark(photo, mark):
    (photo.parent / "one.jpg.box").write_text(f"{mark}1,2,30,40\n", encoding="utf-8")
    (photo.parent / "mine.txt").write_text(f"{mark}one.jpg\r\n", encoding="utf-8")
    (found,) = find_photos([photo.parent / "mine.txt"])
    assert found.path == photo
    assert found.boxes_px.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize("content", ["one.jpg\n".encode("utf-16"), b"\xff\xfe\x00", b"\xe9.jpg"])
def test_a_list_that_is_not_utf8_is_refused(photo, content):
    (photo.parent / "mine.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.txt: cannot be read as a list"):
        find_photos([photo.parent / "mine.txt"])


@posix
@pytest.mark.parametrize("name", ["mine.txt", "labels.xml", "one.jpg.box"])
def test_a_pipe_or_folder_where_a_text_belongs_is_refused_and_does_not_hang(photo, name):
    for make, word in ((os.mkfifo, "a pipe"), (os.mkdir, "a folder")):
        make(photo.parent / name)
        source = photo if name.endswith(".box") else photo.parent / name
        if word == "a folder" and name == "mine.txt":
            # A folder is a folder with photos, whatever its name.
            continue
        with pytest.raises(UserError, match=word):
            find_photos([source])
        os.remove(photo.parent / name) if make is os.mkfifo else os.rmdir(photo.parent / name)  # noqa: PTH106, PTH107


@posix
def test_a_device_or_an_endless_text_is_refused(photo):
    (photo.parent / "zero.txt").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="a pipe or device"):
        find_photos([photo.parent / "zero.txt"])
    with (photo.parent / "one.jpg.box").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="larger than"):
        find_photos([photo])


@posix
def test_a_name_as_long_as_the_disk_allows_has_no_box_beside_it(tmp_path):
    longest = tmp_path / ("a" * 251 + ".jpg")
    longest.write_bytes(b"")
    (found,) = find_photos([tmp_path])
    assert found.path == longest
    assert found.boxes_px is None


@posix
@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".txt", "a" * 300 + ".xml", "b/" * 3000])
def test_a_name_that_is_too_long_is_a_sentence(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read|no such file"):
        find_photos([tmp_path / name])


@posix
def test_names_in_a_list_that_are_too_long_or_none_are_photos_that_cannot_be_read(photo):
    (photo.parent / "mine.txt").write_text("a" * 300 + ".jpg\n" + "a\0b.jpg\none.jpg\n")
    assert len(find_photos([photo.parent / "mine.txt"])) == 3


@posix
def test_links_that_lead_to_themselves_do_not_hang(photo):
    (photo.parent / "loop").symlink_to("loop")
    (photo.parent / "below").symlink_to(".")
    (found,) = find_photos([photo.parent])
    assert found.path == photo
    with pytest.raises(UserError, match="cannot be read|no such file"):
        find_photos([photo.parent / "loop"])


@posix
def test_pipes_in_a_folder_of_photos_are_no_photos(photo):
    os.mkfifo(photo.parent / "pipe.jpg")
    assert [found.path for found in find_photos([photo.parent])] == [photo]


def test_boxes_are_finite_and_have_an_area(photo):
    for text in ("1,2,0,4", "1,2,3", "1,2,3,nan", "1,2,3,1e999", "1_0,2,3,4", "\u0661,2,3,4"):
        (photo.parent / "one.jpg.box").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="is not a box"):
            find_photos([photo])
    (photo.parent / "one.jpg.box").write_text("[[1, 2, 3, 4], [5, 6, 7, 8]]")
    assert np.array_equal(find_photos([photo])[0].boxes_px, [[1, 2, 3, 4], [5, 6, 7, 8]])
