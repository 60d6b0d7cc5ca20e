"""One picture file to pixels: listed formats only, nothing that hangs, nothing larger than memory."""

import os

import numpy as np
import pytest
from PIL import Image

from foldmark.core.faces import Faces
from foldmark.data.decode import colour_photo, picture_size, read_grey, read_photo
from foldmark.data.imm import read_imm
from foldmark.data.lookalikes import inspect_picture
from foldmark.data.twins import read_picture_sizes
from tests.data.test_imm import asf

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 30
%%EndComments
(hacked) (w) file closefile
showpage
%%EOF
"""
READERS = [read_grey, read_photo, picture_size, lambda path: colour_photo(path, 100)]


@pytest.fixture
def no_ghostscript(tmp_path, monkeypatch):
    """A Ghostscript that leaves a trace when it is started."""
    trace = tmp_path / "started"
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {trace}\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield
    assert not trace.exists()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["face.eps", "face.jpg", "face.ps"])
def test_postscript_is_never_opened_whatever_its_name(tmp_path, no_ghostscript, read, name):
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(ValueError, match="is not a picture in a format that is read .JPEG, PNG"):
        read(tmp_path / name)


def test_postscript_in_a_data_set_is_named_by_every_reader(tmp_path, no_ghostscript):
    (tmp_path / "01-1m.jpg").write_bytes(EPS)
    (tmp_path / "01-1m.asf").write_text(asf())
    with pytest.raises(Exception, match="is not a picture"):
        read_imm(tmp_path)
    assert "is not a picture" in inspect_picture(tmp_path / "01-1m.jpg").problem
    faces = Faces(tmp_path, ["01-1m.jpg"], np.ones((1, 4)), None, np.zeros((1, 2)), ["01"])
    assert np.isnan(read_picture_sizes(faces)).all()


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp", "gif", "ppm", "pgm"])
def test_the_usual_formats_are_read(tmp_path, ending):
    Image.new("L", (40, 30), 200).save(tmp_path / f"face.{ending}")
    assert read_grey(tmp_path / f"face.{ending}").shape == (30, 40)
    assert picture_size(tmp_path / f"face.{ending}") == (40, 30)


@pytest.mark.parametrize("ending", ["ico", "pcx", "tga", "icns", "dds", "pdf"])
def test_other_formats_of_pillow_are_not(tmp_path, ending):
    Image.new("RGB", (64, 64)).save(tmp_path / f"face.{ending}")
    with pytest.raises(ValueError, match="is not a picture"):
        read_grey(tmp_path / f"face.{ending}")


@pytest.mark.skipif(os.name != "posix", reason="pipes, devices and links as POSIX systems have them")
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_or_too_large_is_a_sentence_and_does_not_hang(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(2**40)
    for name in ("pipe.jpg", "folder.jpg", "loop.jpg", "zero.jpg", "sparse.jpg", "none.jpg", "a" * 300 + ".jpg"):
        with pytest.raises(ValueError, match="not a|larger than|is missing|cannot be read"):
            read(tmp_path / name)
    assert inspect_picture(tmp_path / "sparse.jpg").problem == "cannot be read (it is larger than 1,024 MB)"
