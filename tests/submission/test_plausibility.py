"""All that can be wrong with a competition file, found at once and named with its rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foldmark.core import geometry
from foldmark.core.config import CropConfig
from foldmark.core.faces import Faces
from foldmark.core.markup import IBUG68
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, read_ibug
from foldmark.submission.findings import spans
from foldmark.submission.format import FORMATS
from tests.conftest import assert_refused
from tests.submission.test_format import plain_face

KAGGLE = FORMATS["ibug"]
WIDTH, HEIGHT = 640, 480
CROP = CropConfig(size=96, enlargement=1.35)


def turned_face(turn: float) -> np.ndarray:
    """The plain face with its inner parts moved sideways, as on a turned head; relative to its box."""
    face = plain_face()
    face[17:, 0] += turn
    return face


def mirrored(points_px: np.ndarray, width: float = WIDTH) -> np.ndarray:
    return geometry.apply(geometry.flip(width), points_px)[..., IBUG68.mirror, :]


def synthetic_list(count: int = 10, seed: int = 0) -> Faces:
    """A list of `count` pictures and their twins, faces turned to one side and boxes off the middle."""
    rng = np.random.default_rng(seed)
    pictures, boxes, points = [], [], []
    for number in range(count):
        side, left, top = rng.integers(90, 240), rng.integers(10, 180), rng.integers(10, 230)
        face_px = turned_face(rng.uniform(0.05, 0.12)) * side + [left + side / 2, top + side / 2]
        for name, box_left, points_px in (("", left, face_px), ("_mirror", WIDTH - left - side, mirrored(face_px))):
            pictures.append(f"set/{number:02d}{name}.jpg")
            boxes.append((box_left, top, side, side))
            points.append(points_px)
    # The test list is in no order that means anything.
    order = rng.permutation(2 * count)
    pictures = [pictures[row] for row in order]
    sizes_px = np.tile([WIDTH, HEIGHT], (2 * count, 1)).astype(float)
    return Faces(Path("nowhere"), pictures, np.array(boxes, float)[order], np.array(points)[order], sizes_px, pictures)


@pytest.fixture
def faces() -> Faces:
    return synthetic_list()


@pytest.fixture
def found(faces, tmp_path):
    """Write points or lines as a foreign program would, and give the findings as `defect: sentence`."""

    def find(content: np.ndarray | list[str], faces: Faces = faces) -> list[str]:
        path = tmp_path / "foreign.csv"
        path.write_text(KAGGLE.text(content, faces) if isinstance(content, np.ndarray) else "\n".join(content) + "\n")
        return [f"{finding.defect}: {finding.sentence}" for finding in KAGGLE.findings(path, faces, CROP)]

    return find


def test_nothing_is_found_in_a_right_file(faces, found):
    assert found(faces.points_px) == []


def test_every_defect_of_form_in_one_file_is_named_with_its_lines(faces, found):
    lines = KAGGLE.text(faces.points_px, faces).splitlines()
    lines[0] = "# Id,Predicted"
    lines[12 - 1] = "9,50.0"  # Id 10
    lines[30 - 1], lines[31 - 1] = lines[31 - 1], lines[30 - 1]
    lines[50 - 1], lines[52 - 1] = "48,nan", "50,left"
    lines[60 - 1] = lines[60 - 1].replace("58,", "58.0,")
    lines[70 - 1] = "68"
    lines[80 - 1] = "99999,1.0"  # Id 78
    del lines[-3:]
    findings = found(lines)
    expected = [
        ("header: line 1", "# Id,Predicted", "savetxt"),
        ("count: 2,717 of 2,720 rows",),
        ("row: line 70: the row is '68'",),
        ("Id: line 60", "'58.0'", "whole number"),
        ("duplicate: line 12", "Id 9 ", "second time", "Id 10 belongs"),
        ("order: line 30", "Id 29", "(2 rows: lines 30 to 31)"),
        ("Id: line 80", "99999", "Ids run from 0 to 2719"),
        ("non-finite: line 50", "'nan'", "(2 rows: lines 50 and 52)"),
        ("missing: Ids 10, 68, 78 and 2717 to 2719 are not there (6)",),
    ]
    assert len(findings) == len(expected), findings
    for finding, words in zip(findings, expected, strict=True):
        assert finding.startswith(words[0]), (finding, words)
        assert all(word in finding for word in words), (finding, words)


def test_a_missing_header_costs_no_row_and_a_missing_row_puts_no_other_out_of_order(faces, found):
    lines = KAGGLE.text(faces.points_px, faces).splitlines()
    assert [finding.partition(":")[0] for finding in found(lines[1:])] == ["header"]
    assert [finding.partition(":")[0] for finding in found([*lines[:500], *lines[501:]])] == ["count", "missing"]
    assert [finding.partition(":")[0] for finding in found([])] == ["header", "count", "missing"]


def test_values_stand_where_their_ids_say_in_a_file_out_of_order(faces, found):
    lines = KAGGLE.text(faces.points_px, faces).splitlines()
    findings = found([lines[0], *reversed(lines[1:])])
    assert len(findings) == 1
    assert findings[0].startswith("order: line 2: Id 2719 ")
    assert "(2,720 rows: lines 2 to 2721)" in findings[0]


def to_crop(points_px: np.ndarray, faces: Faces, crop: CropConfig) -> np.ndarray:
    points = np.empty_like(points_px)
    for row, box_px in enumerate(faces.boxes_px):
        left, top, side = geometry.square_window(box_px, crop.enlargement)
        points[row] = geometry.apply(geometry.resize(crop.size[0] / side, crop.size[1] / side, left, top), points_px[row])
    return points


def x_mirrored(points_px: np.ndarray) -> np.ndarray:
    return geometry.apply(geometry.flip(WIDTH), points_px)


WHOLE_FILE = {
    "x and y swapped": (lambda px, faces: px[..., ::-1], "swapped x/y", "x and y are swapped"),
    "the configured crop": (lambda px, faces: to_crop(px, faces, CROP), "crop pixels", "pixels of the 96x96 crop"),
    "the course's crop": (
        lambda px, faces: to_crop(px, faces, CropConfig(size=224, enlargement=1.0)),
        "crop pixels",
        "raw box scaled to 224x224",
    ),
    "some other crop": (
        lambda px, faces: to_crop(px, faces, CropConfig(size=192, enlargement=2.0)),
        "crop pixels",
        "a crop about 19",
    ),
    "the box's corner": (lambda px, faces: px - faces.boxes_px[:, None, :2], "crop pixels", "counted from the box's corner"),
    "0..1 of the box": (
        lambda px, faces: (px - faces.boxes_px[:, None, :2]) / faces.boxes_px[:, None, 2:],
        "0..1",
        "relative to the box",
    ),
    "0..1 of the picture": (lambda px, faces: px / [WIDTH, HEIGHT], "0..1", "relative to the picture"),
    "0..1 of the crop": (lambda px, faces: to_crop(px, faces, CROP) / 96, "0..1", "relative to the 96x96 crop"),
    "a flip without the swap": (lambda px, faces: px[:, IBUG68.mirror], "left and right", "left and the right points"),
    "the mirrored picture": (lambda px, faces: mirrored(px), "mirrored", "those of the mirrored picture"),
    "x from the right edge": (lambda px, faces: x_mirrored(px), "mirrored", "x is counted from the right edge"),
    "pictures in alphabetical order": (lambda px, faces: px[np.argsort(faces.pictures)], "order", "alphabetical order"),
}


@pytest.mark.parametrize("name", WHOLE_FILE)
def test_a_file_in_another_frame_is_told_which(name, faces, found):
    change, defect, words = WHOLE_FILE[name]
    findings = found(np.ascontiguousarray(change(faces.points_px, faces)))
    assert len(findings) == 1, findings
    assert findings[0].startswith(f"{defect}: set/")
    assert words in findings[0]
    assert "(20 faces: Ids 0 to 2719)" in findings[0]


def test_single_faces_are_named_each_with_its_defect_and_ids(faces, found):
    points_px, pictures = faces.points_px.copy(), faces.pictures
    swapped = [pictures.index(f"set/0{number}.jpg") for number in (0, 1, 2)]
    points_px[swapped] = points_px[swapped][..., ::-1]
    relative = pictures.index("set/03.jpg")
    points_px[relative] /= [WIDTH, HEIGHT]
    elsewhere = pictures.index("set/04_mirror.jpg")
    points_px[elsewhere] += [700, 0]
    twin = pictures.index("set/05_mirror.jpg")
    points_px[twin] = x_mirrored(points_px[pictures.index("set/05.jpg")])
    unfinished = pictures.index("set/06.jpg")
    lines = KAGGLE.text(points_px, faces).splitlines()
    lines[1 + unfinished * 136] = f"{unfinished * 136},inf"
    findings = {finding.partition(":")[0]: finding for finding in found(lines)}
    assert set(findings) == {"swapped x/y", "0..1", "off the box", "mirror twins", "non-finite"}
    for defect, row in (("0..1", relative), ("off the box", elsewhere), ("mirror twins", twin)):
        assert f"{pictures[row]} (face {row + 1} of 20, Ids {row * 136} to {row * 136 + 135}): " in findings[defect]
    assert "(3 faces: Ids" in findings["swapped x/y"]
    for row in swapped:
        assert str(row * 136) in findings["swapped x/y"] or str(row * 136 + 135) in findings["swapped x/y"]
    assert f"line {unfinished * 136 + 2}" in findings["non-finite"]


TWINS = {
    "copied from the picture": (lambda px: px, "neither mirrored nor swapped"),
    "mirrored without the swap": (x_mirrored, "x mirrored but left and right not swapped"),
    "swapped without mirroring": (lambda px: px[:, IBUG68.mirror], "left and right swapped but x not mirrored"),
}


@pytest.mark.parametrize("name", TWINS)
def test_twins_whose_points_were_not_or_half_mirrored_are_named(name, faces, found):
    make, words = TWINS[name]
    points_px = faces.points_px.copy()
    for number in (3, 8):
        points_px[faces.pictures.index(f"set/0{number}_mirror.jpg")] = make(
            faces.points_px[[faces.pictures.index(f"set/0{number}.jpg")]]
        )[0]
    findings = found(points_px)
    assert len(findings) == 1, findings
    assert findings[0].startswith("mirror twins: set/0")
    assert words in findings[0]
    assert "(2 faces: Ids " in findings[0]
    assert "x' = width - 1 - x" in findings[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.02))
def test_twins_that_differ_as_nets_do_are_not_accused(tmp_path_factory, seed, noise):
    faces = synthetic_list(4, seed)
    sides = faces.boxes_px[:, 2:].max(axis=1)[:, None, None]
    points_px = faces.points_px + np.random.default_rng(seed).normal(0, noise, faces.points_px.shape) * sides
    KAGGLE.write(tmp_path_factory.getbasetemp() / "twins.csv", points_px, faces, CROP)


@given(st.sets(st.integers(0, 400), min_size=1))
def test_spans_name_every_number_once(numbers):
    text = spans(sorted(numbers), most=10**6).replace(" and ", ", ")
    named = []
    for span in text.split(", "):
        first, _, last = span.partition(" to ")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)
    assert len(spans(sorted(numbers))) < 80


def test_checkcsv_lists_all_and_ends_with_2(foldmark, synthetic_root, workplace):
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    middles = faces.boxes_px[:, :2] + faces.boxes_px[:, 2:] / 2
    points_px = middles[:, None] + turned_face(0.1) * faces.boxes_px[:, 2:].max(axis=1)[:, None, None]
    twins = [row for row, picture in enumerate(faces.pictures) if "_mirror" in picture]
    for twin in twins:
        with Image.open(faces.path(twin)) as picture:
            points_px[twin] = mirrored(
                points_px[faces.pictures.index(faces.pictures[twin].replace("_mirror", ""))], picture.width
            )
    file = workplace / "any.csv"
    file.write_text(KAGGLE.text(points_px, faces))
    done = foldmark("checkcsv", file, "--data-root", synthetic_root)
    assert done.returncode == 0, done.stderr
    assert "no defect found: 8 faces, 1088 rows" in done.stdout
    assert "4 mirror twins agree" in done.stdout
    # Each picture's width is read from its header: without it, this copy would be taken for a right one.
    points_px[twins[0]] = points_px[faces.pictures.index(faces.pictures[twins[0]].replace("_mirror", ""))]
    file.write_text("# " + KAGGLE.text(points_px, faces))
    before = file.read_bytes()
    done = foldmark("checkcsv", file, "--data-root", synthetic_root)
    assert_refused(done, "any.csv", "2 kinds of defects")
    assert "header: line 1" in done.stdout
    assert f"{faces.pictures[twins[0]]} (face {twins[0] + 1} of 8" in done.stdout
    assert file.read_bytes() == before
    assert_refused(foldmark("checkcsv", "", "--data-root", synthetic_root), "FILE=", "submissions/resnet18.csv")
    assert_refused(foldmark("checkcsv", "none.csv", "--data-root", synthetic_root), "none.csv", "no such file", "resnet18.csv")
    picture = next(synthetic_root.rglob("*.jpg"))
    done = foldmark("checkcsv", picture, "--data-root", synthetic_root)
    assert_refused(done, picture.name, "not a text file", "submissions/resnet18.csv", "`make csv`")
