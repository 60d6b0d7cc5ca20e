"""The competition file: written, read back and checked."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, read_ibug
from foldmark.submission.format import FORMATS

KAGGLE, CROP = FORMATS["ibug"], CropConfig()


def plain_face() -> np.ndarray:
    """68 points of a plain frontal face relative to its box: centre 0, side 1."""
    jaw = np.linspace(-1, 1, 17)
    eye = np.array([[-1, 0], [-0.5, -0.5], [0.5, -0.5], [1, 0], [0.5, 0.5], [-0.5, 0.5]]) * 0.1
    lips = np.deg2rad(np.arange(180, 540, 30))
    inner = np.deg2rad(np.arange(180, 540, 45))
    return np.concatenate(
        [
            np.column_stack([0.46 * np.sin(jaw * np.pi / 2), 0.6 - 0.65 * jaw**2]),
            np.column_stack([np.linspace(-0.38, -0.1, 5), np.full(5, -0.28)]),
            np.column_stack([np.linspace(0.1, 0.38, 5), np.full(5, -0.28)]),
            np.column_stack([np.zeros(4), np.linspace(-0.12, 0.12, 4)]),
            np.column_stack([np.linspace(-0.1, 0.1, 5), np.full(5, 0.2)]),
            eye + [-0.2, -0.14],
            eye + [0.2, -0.14],
            np.column_stack([0.17 * np.cos(lips), 0.37 + 0.08 * np.sin(lips)]),
            np.column_stack([0.13 * np.cos(inner), 0.37 + 0.04 * np.sin(inner)]),
        ]
    )


def some_faces(boxes: list[tuple[float, float, float, float]]) -> Faces:
    boxes_px = np.array(boxes, dtype=float)
    centre = boxes_px[:, :2] + boxes_px[:, 2:] / 2
    points_px = centre[:, None] + plain_face() * boxes_px[:, 2:].max(axis=1)[:, None, None]
    pictures = [f"set/face_{row}.jpg" for row in range(len(boxes))]
    return Faces(Path("nowhere"), pictures, boxes_px, points_px, np.zeros((len(boxes), 2)), pictures)


@pytest.fixture
def faces() -> Faces:
    return some_faces([(-20, -20, 200, 200), (128, 100, 256, 240), (900, 300, 70, 70)])


@pytest.fixture
def written(faces, tmp_path) -> Path:
    path = tmp_path / "submissions" / "resnet18.csv"
    KAGGLE.write(path, faces.points_px, faces, CROP)
    return path


def test_the_file_is_as_the_competition_wants_it(faces, written):
    lines = written.read_text().splitlines()
    assert lines[0] == "Id,Predicted"
    assert len(lines) == 1 + 3 * 136
    # Face by face, point by point, x before y.
    for face, point, axis in [(0, 0, 0), (0, 0, 1), (1, 3, 0), (2, 67, 1)]:
        index = face * 136 + 2 * point + axis
        assert lines[1 + index] == f"{index},{faces.points_px[face, point, axis]:.4f}"
    KAGGLE.check(written, faces, CROP)


boxes = st.tuples(st.floats(-500, 2000), st.floats(-500, 2000), st.floats(30, 3000), st.floats(0.85, 1.15))


@settings(max_examples=40)
@given(st.lists(boxes, min_size=1, max_size=3), st.integers(0, 2**32 - 1), st.floats(0.8, 1.25), st.floats(-0.2, 0.2))
def test_any_plausible_points_are_read_back_to_a_tenthousandth(tmp_path_factory, drawn_boxes, seed, scale, shift):
    faces = some_faces([(left, top, width, width * ratio) for left, top, width, ratio in drawn_boxes])
    sides = faces.boxes_px[:, 2:].max(axis=1)[:, None, None]
    centre = (faces.boxes_px[:, :2] + faces.boxes_px[:, 2:] / 2)[:, None]
    noise = np.random.default_rng(seed).normal(0, 0.02, faces.points_px.shape)
    points_px = centre + (faces.points_px - centre) * scale + (noise + shift) * sides
    path = tmp_path_factory.getbasetemp() / "plausible.csv"
    KAGGLE.write(path, points_px, faces, CROP)
    read_px = np.loadtxt(path, delimiter=",", skiprows=1)[:, 1].reshape(points_px.shape)
    assert np.abs(read_px - points_px).max() <= 1e-4


def with_line(number: int, text: str):
    return lambda lines: [*lines[: number - 1], text, *lines[number:]]


FORM = {
    "header missing": (lambda lines: lines[1:], ["line 1", "Id,Predicted"]),
    "header as np.savetxt writes it": (with_line(1, "# Id,Predicted"), ["line 1", "# Id,Predicted", "savetxt"]),
    "empty": (lambda lines: [], ["line 1"]),
    "cut short": (lambda lines: lines[:301], ["300 of 408 rows", "136"]),
    "one row too many": (lambda lines: [*lines, "408,1.0"], ["409 of 408 rows"]),
    "a float for an Id": (with_line(12, "10.0,50.0"), ["line 12", "'10.0'", "whole number"]),
    "an Id as np.savetxt writes it": (with_line(2, "0.000000000000000000e+00,1"), ["line 2", "whole number"]),
    "an Id twice": (with_line(12, "9,50.0"), ["line 12", "Id 9", "second time", "Id 10"]),
    "two rows exchanged": (lambda lines: [*lines[:11], lines[12], lines[11], *lines[13:]], ["line 12", "Id 11", "out of order"]),
    "no comma": (with_line(100, "98"), ["line 100", "'98'"]),
    "a word": (with_line(100, "98,left"), ["line 100", "Id 98", "'left'"]),
    "NaN": (with_line(100, "98,nan"), ["line 100", "Id 98", "'nan'", "finite"]),
    "infinite": (with_line(100, "98,-inf"), ["line 100", "finite"]),
    "a third column": (with_line(100, "98,1.0,2.0"), ["line 100", "'1.0,2.0'"]),
}


@pytest.mark.parametrize("name", FORM)
def test_a_defect_of_form_is_named_with_its_line(name, faces, written):
    damage, words = FORM[name]
    written.write_text("".join(line + "\n" for line in damage(written.read_text().splitlines())))
    with pytest.raises(UserError) as refusal:
        KAGGLE.check(written, faces, CROP)
    for word in [str(written), *words]:
        assert word in str(refusal.value)


def test_a_file_that_cannot_be_read_is_named(faces, tmp_path):
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for path, word in [
        (tmp_path / "none.csv", "make csv"),
        (tmp_path, "cannot be read"),
        (pipe, "cannot be read"),
        (binary, "not a text file"),
    ]:
        with pytest.raises(UserError, match=word):
            KAGGLE.check(path, faces, CROP)


def one_wild_point(points_px):
    points_px[1, 30, 0] += 600
    return points_px


def one_not_finite(points_px):
    points_px[1, 30, 0] = np.nan
    return points_px


WRONG_VALUES = {
    "huge": (lambda points_px: points_px * 1e16, 0, "box sides"),
    "astronomic": (lambda points_px: np.where(points_px, 1e300, 0), 0, "box sides"),
    "in crop pixels": (lambda points_px: np.broadcast_to(112 + 150 * plain_face(), (3, 68, 2)), 0, "crop about 2"),
    "of another face": (lambda points_px: np.roll(points_px, 1, axis=0), 0, "middle of the box"),
    "x and y swapped": (lambda points_px: points_px[..., ::-1], 0, "swapped"),
    "flipped without the swap": (
        lambda points_px: 2 * points_px.mean(1, keepdims=True) * [1, 0] + points_px * [-1, 1],
        0,
        "flip",
    ),
    "all in one place": (lambda points_px: points_px.mean(1, keepdims=True).repeat(68, 1), 0, "crowd"),
    "scattered": (lambda points_px: points_px + 2.1 * (points_px - points_px.mean(1, keepdims=True)), 0, "box sides"),
    "one point 600 px off": (one_wild_point, 1, "a point lies"),
    "one value NaN": (one_not_finite, 1, "finite"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_implausible_points_are_never_written(name, faces, written):
    change, face, word = WRONG_VALUES[name]
    before = written.read_bytes()
    with pytest.raises(UserError) as refusal:
        KAGGLE.write(written, change(faces.points_px.copy()), faces, CROP)
    assert f"set/face_{face}.jpg (face {face + 1} of 3, Ids {face * 136} to {face * 136 + 135})" in str(refusal.value)
    assert word in str(refusal.value)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_implausible_points_in_a_file_are_refused(faces, written):
    lines = written.read_text().splitlines()
    lines[1 + 136 + 61] = f"{136 + 61},5000.0"
    written.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"set/face_1.jpg .*Ids 136 to 271.*a point lies"):
        KAGGLE.check(written, faces, CROP)


def test_points_for_another_number_of_faces_are_refused(faces, tmp_path):
    with pytest.raises(UserError, match=r"\(2, 68, 2\).*3 faces"):
        KAGGLE.write(tmp_path / "short.csv", faces.points_px[:2], faces, CROP)
    assert not list(tmp_path.iterdir())


def test_the_truth_of_every_real_face_is_plausible(real_root, real_faces, tmp_path):
    KAGGLE.write(tmp_path / "truth.csv", real_faces.points_px, real_faces, CROP)
    middle = real_faces.boxes_px[:, :2] + real_faces.boxes_px[:, 2:] / 2
    off = (real_faces.points_px.mean(axis=1) - middle) / real_faces.boxes_px[:, 2:].max(axis=1, keepdims=True)
    assert np.abs(off.mean(axis=0)).max() < 0.06
    test = read_ibug(real_root / IBUG_FOLDER / TEST_XML, with_points=False)
    with pytest.raises(UserError, match=f"of {len(test) * 136:,} rows"):
        KAGGLE.check(tmp_path / "truth.csv", test, CROP)
