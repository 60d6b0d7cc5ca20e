"""The IMM reader, the split by person, and parts of a markup."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldmark.core.errors import UserError
from foldmark.core.markup import IBUG68, IMM58
from foldmark.data.folds import group_faces, hold_out_last, make_folds
from foldmark.data.imm import find_imm, read_imm, view_of


@pytest.fixture(scope="module")
def real_imm(real_root) -> Path:
    return find_imm(real_root)


@pytest.fixture(scope="module")
def real_imm_faces(real_imm):
    return read_imm(real_imm)


def asf(points=58, x="0.25", columns="", picture="01-1m.jpg") -> str:
    rows = [f"0\t4\t{x}\t0.{k:02d}\t{k}\t{k}\t{k}{columns}" for k in range(points)]
    return "\n".join(["# a comment", "", "58", "#", *rows, "", picture, ""])


@pytest.fixture
def one_face(tmp_path):
    from PIL import Image

    Image.new("RGB", (640, 480)).save(tmp_path / "01-1m.jpg")
    (tmp_path / "01-1m.asf").write_text(asf())
    return tmp_path


def test_points_are_pixels_of_the_picture(one_face):
    faces = read_imm(one_face)
    assert faces.pictures == ["01-1m.jpg"]
    assert faces.points_px[0, 30].tolist() == [160, pytest.approx(0.30 * 480)]
    assert faces.boxes_px.tolist() == [[0, 0, 640, 480]]
    assert faces.groups == ["01"]
    assert view_of(faces.pictures[0]) == "neutral"


def test_three_more_columns_are_read_too(one_face):
    before = read_imm(one_face).points_px
    (one_face / "01-1m.asf").write_text(asf(columns="\t0.00\t0.00\t0.00"))
    assert np.array_equal(read_imm(one_face).points_px, before)


def test_all_real_files_are_read(real_imm_faces):
    assert len(real_imm_faces) == 240
    assert real_imm_faces.points_px.shape == (240, 58, 2)
    assert sorted(set(real_imm_faces.groups)) == [f"{person:02d}" for person in range(1, 41)]
    inside = (real_imm_faces.points_px > 0) & (real_imm_faces.points_px < [640, 480])
    assert inside.mean() > 0.999


def test_the_set_is_found_in_a_subfolder_too(real_root, real_imm):
    assert find_imm(real_imm) == real_imm
    assert find_imm(real_root.parent) == real_imm


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "points where 58"),
        (asf(57), "57 points where 58"),
        (asf(59), "59 points where 58"),
        (asf(x="nan"), "nan is not a position"),
        (asf(x="inf"), "inf is not a position"),
        (asf(x="left"), "left is not a position"),
        (asf(x="250"), "250 is not a position"),
        (asf().replace("\t7\t7\t7", "\t6\t6\t6"), "point 6 is there twice"),
        (asf().replace("\t7\t7\t7", "\t99\t6\t6"), "point 99"),
        (asf().replace("0\t4\t0.25\t0.07\t7", "0\t4\t0.25\t7"), "is not a point"),
        (asf(picture="../secret.jpg"), "names the picture"),
        (asf(picture="02-1m.jpg"), "names the picture"),
        ("\u00e9", "cannot be read as text"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(one_face, content, words):
    (one_face / "01-1m.asf").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words) as refused:
        read_imm(one_face)
    assert "01-1m.asf" in str(refused.value)


@pytest.mark.parametrize(("content", "words"), [(None, "is missing"), (b"", "is not a picture"), (b"text", "is not a picture")])
def test_what_is_wrong_with_a_picture_is_named(one_face, content, words):
    (one_face / "01-1m.jpg").unlink()
    if content is not None:
        (one_face / "01-1m.jpg").write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        read_imm(one_face)
    assert "01-1m.jpg" in str(refused.value)


def test_a_strange_name_is_refused(one_face):
    shutil.copy(one_face / "01-1m.asf", one_face / "me.asf")
    with pytest.raises(UserError, match=r"me\.asf"):
        read_imm(one_face)


@given(st.data())
@settings(max_examples=200)
def test_damaged_files_are_read_whole_or_refused(tmp_path_factory, data):
    from PIL import Image

    folder = tmp_path_factory.getbasetemp() / "imm-fuzz"
    folder.mkdir(exist_ok=True)
    Image.new("L", (64, 48)).save(folder / "01-1m.jpg")
    whole = asf().encode()
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, min(len(whole), at + 200)))
    (folder / "01-1m.asf").write_bytes(whole[:at] + data.draw(st.binary(max_size=20)) + whole[end:])
    try:
        faces = read_imm(folder)
    except UserError:
        return
    assert faces.points_px.shape == (1, 58, 2)
    assert np.isfinite(faces.points_px).all()


def test_the_course_holds_out_the_last_8_people(real_imm_faces):
    folds = hold_out_last(real_imm_faces, group_faces(real_imm_faces), 8)
    held_out = [person for person, fold in zip(real_imm_faces.groups, folds, strict=True) if fold == 0]
    assert sorted(set(held_out)) == [str(person) for person in range(33, 41)]
    assert len(held_out) == 48
    assert set(folds) == {-1, 0}


def test_people_stay_whole_in_eight_folds(real_imm_faces):
    folds = make_folds(real_imm_faces, group_faces(real_imm_faces), 8, seed=0)
    for person in set(real_imm_faces.groups):
        assert len({fold for fold, of in zip(folds, real_imm_faces.groups, strict=True) if of == person}) == 1
    assert np.bincount(folds).tolist() == [30] * 8


def test_part_of_a_markup_keeps_what_a_flip_swaps():
    eyes = IMM58.pick(IMM58.regions["left eye"] + IMM58.regions["right eye"])
    assert eyes.count == 16
    assert np.array_equal(eyes.mirror, [*range(8, 16), *range(8)])
    assert IMM58.pick([52]).mirror.tolist() == [0]


@pytest.mark.parametrize(
    ("points", "word"), [([36], "mirror partner 45"), ([68], "0 to 67"), ([], "0 to 67"), ([30, 30], "different")]
)
def test_points_that_a_flip_would_lose_are_refused(points, word):
    with pytest.raises(UserError, match=word):
        IBUG68.pick(points)
