"""The crop store: decoded once, exact, keyed by what it depends on, and honest about damaged pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foldmark.core import geometry
from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.data.crops import open_store, store_size
from foldmark.data.decode import read_grey
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug

CROP = CropConfig(size=64)


@pytest.fixture
def faces(data_root):
    return read_ibug(data_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


def test_one_process_and_two_build_the_same_store(faces, tmp_path):
    faces = faces.take(np.tile(np.arange(len(faces)), 2))
    one, two = (open_store(faces, CROP, tmp_path / str(workers), workers=workers) for workers in (1, 2))
    assert one.file.read_bytes() == two.file.read_bytes()
    assert one.file.stat().st_size == len(faces) * int(np.prod(store_size(CROP)))


def test_a_store_is_built_once_and_again_when_something_changes(faces, tmp_path):
    first = open_store(faces, CROP, tmp_path)
    written = first.file.stat().st_mtime_ns
    assert open_store(faces, CROP, tmp_path).file.stat().st_mtime_ns == written
    assert open_store(faces, CropConfig(size=64, enlargement=1.5), tmp_path).file != first.file
    moved = faces.boxes_px.copy()
    moved[3, 0] += 1
    from dataclasses import replace

    assert open_store(replace(faces, boxes_px=moved), CROP, tmp_path).file != first.file
    os.utime(faces.path(0), ns=(1, 1))
    assert open_store(faces, CROP, tmp_path).file != first.file


def test_a_store_that_was_cut_short_is_built_again(faces, tmp_path):
    store = open_store(faces, CROP, tmp_path)
    whole = store.file.read_bytes()
    store.file.write_bytes(whole[: len(whole) // 2])
    assert open_store(faces, CROP, tmp_path).file.read_bytes() == whole


def garble(path):
    path.write_bytes(bytes(reversed(path.read_bytes())))


def replace_by(make):
    def change(path):
        path.unlink()
        make(path)

    return change


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "garbage of the same size": garble,
    "a pipe": replace_by(os.mkfifo) if hasattr(os, "mkfifo") else Path.unlink,
    "a link to itself": replace_by(lambda path: path.symlink_to(path.name)),
}


@pytest.mark.parametrize("which", [".u8", ".json"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_store_that_is_damaged_is_built_again(faces, tmp_path, caplog, which, damage):
    store = open_store(faces, CROP, tmp_path)
    whole = store.file.read_bytes()
    damage(store.file.with_suffix(which))
    with caplog.at_level("INFO", "foldmark"):
        again = open_store(faces, CROP, tmp_path)
    assert again.file.read_bytes() == whole
    assert "the faces are cropped again" in caplog.text


def test_a_folder_where_the_store_belongs_is_a_sentence(faces, tmp_path):
    store = open_store(faces, CROP, tmp_path)
    store.file.unlink()
    store.file.mkdir()
    with pytest.raises(UserError, match="a folder stands where this file should be"):
        open_store(faces, CROP, tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_picture_that_may_be_read_again_is_cut_out(faces, tmp_path):
    faces.path(5).chmod(0)
    assert list(open_store(faces, CROP, tmp_path).damaged) == [5]
    faces.path(5).chmod(0o644)
    assert not open_store(faces, CROP, tmp_path).damaged


@pytest.mark.parametrize("box", [[0, 0, 60_000, 60_000], [0, 0, 9e5, 9e5], [-9e5, 0, 100, 100]])
def test_a_box_that_would_need_gigabytes_is_damage(tmp_path, box):
    Image.new("L", (10_000, 10)).save(tmp_path / "wide.png")
    faces = Faces(tmp_path, ["wide.png"], np.array([box], float), None, np.zeros((1, 2)), ["wide"])
    assert "has a box that does not fit it" in open_store(faces, CROP, tmp_path / "cache").damaged[0]


def test_the_affine_of_a_crop_finds_the_eyes_of_a_synthetic_face(faces, tmp_path):
    """The dark iris lies between the lid points: a wrong affine would look at skin."""
    store = open_store(faces, CROP, tmp_path)
    points_store = geometry.apply(store.px_to_store, faces.points_px)
    inside = (points_store > 0).all(axis=(1, 2)) & (points_store < np.array(store.size) - 1).all(axis=(1, 2))
    assert inside.mean() > 0.5
    picture = read_grey(faces.path(0))
    at = np.rint(points_store[0, 30]).astype(int)
    near_px = geometry.apply(geometry.invert(store.px_to_store[0]), at[None].astype(float))[0]
    x, y = np.rint(near_px).astype(int)
    around = picture[y - 2 : y + 3, x - 2 : x + 3].astype(float)
    assert abs(float(store[0][at[1], at[0]]) - around.mean()) <= np.ptp(around) + 8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"I am a text, not a picture.", "is not a picture"),
        ("truncated", "is damaged"),
    ],
)
def test_damaged_pictures_are_listed(faces, tmp_path, content, words):
    path = faces.path(5)
    if content == "truncated":
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    store = open_store(faces, CROP, tmp_path)
    assert list(store.damaged) == [5]
    assert words in store.damaged[5]
    assert open_store(faces, CROP, tmp_path).damaged == store.damaged


def test_a_picture_of_another_size_than_stated_is_damaged(faces, tmp_path):
    Image.open(faces.path(2)).resize((100, 90)).save(faces.path(2))
    assert "label file says" in open_store(faces, CROP, tmp_path).damaged[2]


def test_a_box_far_off_its_picture_is_damaged(faces, tmp_path):
    from dataclasses import replace

    boxes_px = faces.boxes_px.copy()
    boxes_px[1] = [5000, 10, 100, 100]
    boxes_px[2] = [0, 0, 900_000, 900_000]
    assert list(open_store(replace(faces, boxes_px=boxes_px), CROP, tmp_path).damaged) == [1, 2]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16"])
def test_every_kind_of_picture_is_read_as_grey(tmp_path, mode):
    path = tmp_path / "picture.tif"
    if mode == "I;16":
        Image.fromarray(np.full((20, 30), 65535, np.uint16)).save(path)
    else:
        Image.new("RGB", (30, 20), "white").convert(mode).save(path)
    grey = read_grey(path)
    assert grey.shape == (20, 30)
    assert grey.dtype == np.uint8
    assert grey.min() > 250


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    Image.new("1", (20_000, 20_000)).save(path)
    Image.MAX_IMAGE_PIXELS = limit
    with pytest.raises(ValueError, match="million pixels"):
        read_grey(path)
