"""The label reader: what is complete is read exactly, what is not is refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldmark.core.errors import UserError
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, find_ibug, read_ibug

PARTS = "".join(f"<part name='{i:02d}' x='{i}' y='{2 * i}'/>" for i in range(68))
BOX = "<box top='1' left='-2' width='30' height='40'>"


def xml_file(tmp_path, body):
    path = tmp_path / TRAIN_XML
    path.write_text(f"<?xml version='1.0'?><dataset><images>{body}</images></dataset>")
    return path


def face(parts=PARTS, box=BOX, picture="afw/1_1.jpg"):
    return f"<image file='{picture}' width='90' height='80'>{box}{parts}</box></image>"


def test_a_face_is_read_exactly(tmp_path):
    faces = read_ibug(xml_file(tmp_path, face()), with_points=True)
    assert faces.pictures == ["afw/1_1.jpg"]
    assert faces.boxes_px.tolist() == [[-2, 1, 30, 40]]
    assert faces.sizes_px.tolist() == [[90, 80]]
    assert faces.points_px[0].tolist() == [[i, 2 * i] for i in range(68)]


def test_points_are_ordered_by_name_not_by_place(tmp_path):
    parts = [f"<part name='{i:02d}' x='{i}' y='{2 * i}'/>" for i in np.random.default_rng(0).permutation(68)]
    faces = read_ibug(xml_file(tmp_path, face("".join(parts))), with_points=True)
    assert faces.points_px[0].tolist() == [[i, 2 * i] for i in range(68)]


def test_each_box_of_a_picture_is_a_face(tmp_path):
    body = f"<image file='a/1.jpg'>{BOX}{PARTS}</box>{BOX}{PARTS}</box></image>" + face() + "<image file='a/2.jpg'/>"
    assert read_ibug(xml_file(tmp_path, body), with_points=True).pictures == ["a/1.jpg", "a/1.jpg", "afw/1_1.jpg"]


def test_the_real_lists_are_read_whole(real_faces, real_root):
    assert len(real_faces) == 4416
    assert real_faces.points_px.shape == (4416, 68, 2)
    test = read_ibug(real_root / IBUG_FOLDER / TEST_XML, with_points=False)
    assert len(test) == 716
    assert test.labels_px is None


def test_synthetic_faces_have_the_same_layout(synthetic_root):
    folder = find_ibug(synthetic_root)
    assert len(read_ibug(folder / TRAIN_XML, with_points=True)) == 48
    assert len(read_ibug(folder / TEST_XML, with_points=False)) == 8


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "no face in it"),
        (face(PARTS[: -len("<part name='67' x='67' y='134'/>")]), "67 points where 68"),
        (face(PARTS + "<part name='68' x='1' y='1'/>"), "69 points where 68"),
        (face(PARTS.replace("name='05'", "name='06'")), "point 05 is missing"),
        (face(PARTS.replace("name='05'", "name='99'")), "named '99'"),
        (face(PARTS.replace("name='05'", "name='-5'")), "named '-5'"),
        (face(PARTS.replace("x='5'", "x='nan'")), "point 05 x is nan"),
        (face(PARTS.replace("x='5'", "x='inf'")), "point 05 x is inf"),
        (face(PARTS.replace("x='5'", "x='five'")), "'five', not a number"),
        (face(PARTS.replace("x='5'", "")), "not a number"),
        (face(box=BOX.replace("30", "0")), "no area"),
        (face(box=BOX.replace("40", "-4")), "no area"),
        (face(box=BOX.replace("30", "1e9")), "not a pixel position"),
        (face(box=BOX.replace("top='1'", "")), "box top"),
        (face(picture="../1.jpg"), "leaves the data folder"),
        (face(picture="/etc/passwd"), "leaves the data folder"),
        (face(picture="C:\\a.jpg"), "leaves the data folder"),
        (face(picture=""), "no file name"),
        ("<image", "not a complete XML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, body, words):
    with pytest.raises(UserError, match=words) as refused:
        read_ibug(xml_file(tmp_path, body), with_points=True)
    assert TRAIN_XML in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"Not found", b"<dataset>", "<d>\xff</d>".encode("latin-1")])
def test_a_file_that_is_not_xml_is_refused(tmp_path, content):
    (tmp_path / TRAIN_XML).write_bytes(content)
    with pytest.raises(UserError, match="not a complete XML"):
        read_ibug(tmp_path / TRAIN_XML, with_points=True)


def test_a_dtd_is_refused(tmp_path):
    (tmp_path / TRAIN_XML).write_text("<?xml version='1.0'?><!DOCTYPE d [<!ENTITY a 'aaa'>]><dataset>&a;</dataset>")
    with pytest.raises(UserError, match="declares a DTD"):
        read_ibug(tmp_path / TRAIN_XML, with_points=True)


@given(st.data())
@settings(max_examples=200)
def test_damaged_xml_is_read_whole_or_refused(tmp_path_factory, data):
    """Bytes cut, doubled or changed anywhere: either the faces are all there and finite, or it is a UserError."""
    whole = f"<?xml version='1.0'?><dataset><images>{face()}{face(picture='afw/2_1.jpg')}</images></dataset>".encode()
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, min(len(whole), at + 200)))
    damaged = whole[:at] + data.draw(st.binary(max_size=20)) + whole[end:]
    path = tmp_path_factory.mktemp("fuzz") / TRAIN_XML
    path.write_bytes(damaged)
    try:
        faces = read_ibug(path, with_points=True)
    except UserError:
        return
    assert faces.points_px.shape == (len(faces), 68, 2)
    assert np.isfinite(faces.points_px).all()
    assert np.isfinite(faces.boxes_px).all()
