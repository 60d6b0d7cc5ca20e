"""Synthetic faces: exact, seeded, in the published layout, and never half-written."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import parse

import cv2
import numpy as np
import pytest

from foldmark.core.errors import UserError
from foldmark.core.markup import IBUG68, IMM58
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML
from foldmark.data.imm import IMM_FOLDER, SYNTHETIC_NOTE, read_imm
from foldmark.synthetic import curves
from foldmark.synthetic import ibug as ibug_module
from foldmark.synthetic.face import draw_face, sample_geometry
from foldmark.synthetic.head import Expression, front_z, sample_head
from foldmark.synthetic.ibug import detector_box, write_synthetic_faces
from foldmark.synthetic.imm import draw_imm_face, sample_imm_geometry, write_synthetic_imm
from foldmark.synthetic.view import View, landmarks_px, rotation_matrix
from tests.conftest import assert_refused


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_synthetic_faces(tmp_path_factory.mktemp("synthetic"), train_faces=4, test_faces=2, seed=3, workers=1)


@pytest.fixture(scope="module")
def geometries():
    found = []
    for index in range(300):
        rng = np.random.default_rng([11, index])
        size, head, view, points_px = sample_geometry(rng)
        found.append((size, head, view, points_px, detector_box(points_px, rng)))
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_points(image: ElementTree.Element) -> np.ndarray:
    return np.array([[float(part.get("x")), float(part.get("y"))] for part in image.iter("part")])


def read_box(image: ElementTree.Element) -> dict[str, int]:
    return {key: int(value) for key, value in image.find("box").items()}


def test_same_seed_gives_same_bytes_for_any_number_of_workers(dataset, tmp_path):
    again = write_synthetic_faces(tmp_path, train_faces=4, test_faces=2, seed=3, workers=2)
    assert files_of(again) == files_of(dataset)


def test_every_face_is_another_and_another_seed_draws_others(dataset, tmp_path):
    pictures = [content for name, content in files_of(dataset).items() if name.endswith(".jpg")]
    assert len(pictures) == len(set(pictures)) == 2 * (4 + 2)
    other = write_synthetic_faces(tmp_path, train_faces=1, test_faces=0, seed=4, workers=1)
    assert (other / "synthetic/trainset/00000.jpg").read_bytes() not in pictures


def test_train_list_has_68_numbered_points_and_the_true_picture_size(dataset):
    images = parse(dataset / TRAIN_XML).getroot().findall("images/image")
    assert len(images) == 8
    for image in images:
        assert [part.get("name") for part in image.iter("part")] == [f"{k:02d}" for k in range(68)]
        picture = cv2.imread(str(dataset / image.get("file")))
        assert picture.shape[:2] == (int(image.get("height")), int(image.get("width")))


def test_test_list_has_boxes_but_no_points(dataset):
    images = parse(dataset / TEST_XML).getroot().findall("images/image")
    assert len(images) == 4
    for image in images:
        assert set(read_box(image)) == {"top", "left", "width", "height"}
        assert not list(image.iter("part"))
        assert (dataset / image.get("file")).is_file()


def test_mirror_twin_is_the_flipped_picture_with_swapped_points_and_box(dataset):
    images = {image.get("file"): image for image in parse(dataset / TRAIN_XML).getroot().iter("image")}
    for name in [name for name in images if not name.endswith("_mirror.jpg")]:
        face, twin = images[name], images[name.replace(".jpg", "_mirror.jpg")]
        width = int(face.get("width"))
        expected = read_points(face)[IBUG68.mirror] * [-1, 1] + [width - 1, 0]
        np.testing.assert_allclose(read_points(twin), expected, atol=1e-9)
        box, twin_box = read_box(face), read_box(twin)
        # Boxes hold whole pixels left .. left + width - 1, which the flip maps onto width - 1 - x.
        assert twin_box == box | {"left": width - box["left"] - box["width"]}
        picture, flipped = (cv2.imread(str(dataset / image.get("file"))).astype(int) for image in (face, twin))
        # Both are compressed on their own, so they agree only up to JPEG.
        assert np.abs(picture[:, ::-1] - flipped).mean() < 4 < np.abs(picture - flipped).mean()


def test_draw_face_returns_rgb_bytes_and_finite_points():
    picture, points_px = draw_face(np.random.default_rng([0, 0]))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert 280 <= min(picture.shape[:2]) <= max(picture.shape[:2]) <= 380
    assert points_px.shape == (68, 2)
    assert np.isfinite(points_px).all()


def test_points_follow_the_markup_in_order(geometries):
    for _, _, view, points_px, _ in geometries:
        roll = np.arctan2(view.rotation[1, 0], view.rotation[0, 0])
        upright = points_px @ np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        assert (np.diff(upright[17:27, 0]) > 0).all()  # brows
        assert (np.diff(upright[27:31, 1]) > 0).all()  # nose ridge
        assert (np.diff(upright[31:36, 0]) > 0).all()  # nose base
        assert (np.diff(upright[48:55, 0]) > -1).all()  # upper lip, whose far corner may just turn away
        assert (np.diff(upright[54:60, 0]) < 1).all()  # lower lip
        assert (np.diff(upright[[36, 39, 42, 45], 0]) > 0).all()
        assert upright[8, 1] > upright[57, 1] > upright[33, 1]
        # The outline never runs back on itself.
        step = np.diff(upright[:17], axis=0)
        assert (np.einsum("nd,nd->n", step[:-1], step[1:]) > 0).all()


def test_hidden_jaw_line_lies_on_the_visible_outline():
    """At a strong yaw the far points of the outline stand further out than the jaw line itself, which the cheek hides."""
    head = sample_head(np.random.default_rng(0), Expression())
    view = View(rotation_matrix(np.radians(38), 0, 0), np.eye(3), np.zeros(3), 1.3, np.zeros(2), 1000.0)
    outline = landmarks_px(head, view)[:17]
    jaw = curves.ibug68_xy(head)[:17]
    true_jaw = view.project(np.column_stack([jaw, front_z(head, jaw[:, 0], jaw[:, 1])]))
    np.testing.assert_allclose(outline[:5], true_jaw[:5])
    assert (outline[12:, 0] > true_jaw[12:, 0] + 3).all()


def test_boxes_cut_the_chin_like_those_of_the_detector(geometries):
    reach, chin, leaves = [], [], []
    for (width, height), _, _, points_px, (left, top, box_width, box_height) in geometries:
        half = np.array([box_width, box_height]) / 2
        ratio = np.abs(points_px - [left, top] - half) / half
        reach.append(ratio.max())
        chin.append(ratio[8].max() > 1)
        leaves.append(left < 0 or top < 0 or left + box_width > width or top + box_height > height)
    assert 0.85 < np.mean(np.array(reach) > 1) < 0.99
    assert 0.72 < np.mean(chin) < 0.92
    assert 1.10 < np.median(reach) < 1.24
    assert 1.28 < np.percentile(reach, 95) < 1.48
    assert 0.005 < np.mean(leaves) < 0.12


def test_a_second_call_leaves_a_complete_data_set_alone(dataset):
    marked = dataset / "synthetic/trainset/00000.jpg"
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    marked.touch()
    touched = marked.stat().st_mtime_ns
    assert write_synthetic_faces(dataset.parent, train_faces=9, test_faces=9, seed=99) == dataset
    after = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert after == before | {marked: touched}


def test_a_folder_without_labels_is_neither_used_nor_overwritten(tmp_path):
    own = tmp_path / IBUG_FOLDER / "mine.txt"
    own.parent.mkdir()
    own.write_text("keep")
    with pytest.raises(UserError, match=TRAIN_XML):
        write_synthetic_faces(tmp_path, train_faces=1, test_faces=0, workers=1)
    assert own.read_text() == "keep"


def test_a_killed_build_never_looks_complete_and_does_not_hinder_the_next(tmp_path):
    builder = multiprocessing.get_context("spawn").Process(
        target=write_synthetic_faces, args=(tmp_path,), kwargs={"train_faces": 500, "test_faces": 0, "workers": 1}
    )
    builder.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert list(tmp_path.rglob("*.jpg")), "the builder was killed before it had written anything"
    assert not (tmp_path / IBUG_FOLDER).exists()
    finished = write_synthetic_faces(tmp_path, train_faces=1, test_faces=0, workers=1)
    assert len(parse(finished / TRAIN_XML).getroot().findall("images/image")) == 2


def test_a_failed_build_cleans_up_after_itself(tmp_path, monkeypatch):
    def fail(rng):
        raise RuntimeError("no paint left")

    monkeypatch.setattr(ibug_module, "draw_face", fail)
    with pytest.raises(RuntimeError, match="no paint"):
        write_synthetic_faces(tmp_path, train_faces=1, test_faces=0, workers=1)
    assert not list(tmp_path.iterdir())


# --- in the layout of IMM ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imm(tmp_path_factory) -> Path:
    return write_synthetic_imm(tmp_path_factory.mktemp("imm"), people=2, seed=3, workers=1)


@pytest.fixture(scope="module")
def imm_points() -> np.ndarray:
    """Points (people, views, 58, 2) of many people, without their pictures."""

    def points(person: int, view: int) -> np.ndarray:
        rngs = (np.random.default_rng([7, person, part]) for part in (0, view))
        return landmarks_px(*sample_imm_geometry(view, *rngs), IMM58)

    return np.array([[points(person, view) for view in range(1, 7)] for person in range(1, 31)])


def test_synthetic_imm_has_six_views_a_person_with_their_points_and_says_that_it_is_synthetic(imm):
    assert imm.name == IMM_FOLDER
    pictures = sorted(path.name for path in imm.glob("*.jpg"))
    assert [name[:4] for name in pictures] == [f"{person:02d}-{view}" for person in (1, 2) for view in range(1, 7)]
    assert len({(name[:2], name[4]) for name in pictures}) == 2  # one letter a person
    assert sorted(path.name for path in imm.iterdir()) == sorted(
        [SYNTHETIC_NOTE, *pictures, *(name.replace(".jpg", ".asf") for name in pictures)]
    )
    note = (imm / SYNTHETIC_NOTE).read_text()
    assert "Synthetic faces" in note
    assert note.count("\n") == note.count(".") == 1
    for name in pictures:
        assert cv2.imread(str(imm / name)).shape == (480, 640, 3)


def test_synthetic_asf_files_are_in_the_published_format(imm):
    file = sorted(imm.glob("*.asf"))[0]
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "58"
    assert lines[-1] == file.name.replace(".asf", ".jpg")
    rows = [line.split(" \t") for line in lines[1:-1]]
    assert [row[4] for row in rows] == [str(point) for point in range(58)]
    links = {int(row[4]): (row[0], row[1], row[5], row[6]) for row in rows}
    assert links[0] == ("0", "4", "0", "1")
    assert links[12] == ("0", "4", "11", "12")
    assert links[13] == ("1", "0", "20", "14")
    assert links[28] == ("2", "0", "27", "21")
    assert links[46] == ("5", "0", "45", "39")
    assert links[57] == ("6", "4", "56", "57")


def test_the_reader_finds_the_synthetic_points_where_they_were_drawn(imm):
    faces = read_imm(imm)
    assert faces.groups == ["01"] * 6 + ["02"] * 6
    _, _, points_px = draw_imm_face(3, 2, 3)
    np.testing.assert_allclose(faces.points_px[8], points_px, atol=1e-4)


def test_synthetic_imm_gives_the_same_bytes_for_any_number_of_workers(imm, tmp_path):
    assert files_of(write_synthetic_imm(tmp_path, people=2, seed=3, workers=2)) == files_of(imm)


def test_a_person_keeps_head_and_colours_over_the_views_and_differs_from_others():
    def head_of(person: int, view: int):
        return sample_imm_geometry(view, np.random.default_rng([3, person, 0]), np.random.default_rng([3, person, view]))[0]

    first, turned, other = head_of(1, 1), head_of(1, 4), head_of(2, 1)
    for part in ("half_width", "eye_x", "nose_tip_y", "nose_half_width", "mouth_y", "jaw_power", "brow_thick", "lip_lower"):
        assert getattr(first, part) == getattr(turned, part) != getattr(other, part)

    def hair_and_cheeks(person: int, view: int) -> np.ndarray:
        _, picture, points_px = draw_imm_face(3, person, view)
        chin, eyes = points_px[6], points_px[[13, 21]].mean(axis=0)
        places = [eyes - 0.95 * (chin - eyes), points_px[[9, 19]].mean(axis=0), points_px[[3, 27]].mean(axis=0)]
        return np.concatenate([np.median(_patch(picture, place), axis=(0, 1)) for place in places])

    neutral, happy, other = hair_and_cheeks(1, 1), hair_and_cheeks(1, 2), hair_and_cheeks(2, 1)
    assert np.abs(neutral - happy).max() < 25 < np.abs(neutral - other).max()


def _patch(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    x, y = place.astype(int)
    return picture[y - 6 : y + 7, x - 6 : x + 7]


def test_synthetic_imm_points_follow_the_markup_inside_the_picture(imm_points):
    assert ((imm_points > 0) & (imm_points < [639, 479])).all()
    frontal = imm_points[:, [0, 1, 4]].reshape(-1, 58, 2)
    assert (np.diff(frontal[:, 0:13, 0], axis=1) > 0).all()  # jaw
    for outer, inner, upper, lower in ((13, 17, 15, 19), (21, 25, 23, 27)):
        side = np.sign(frontal[:, outer, 0] - frontal[:, inner, 0])
        assert (side == (1 if outer == 13 else -1)).all()
        assert (frontal[:, upper, 1] < frontal[:, lower, 1]).all()
    assert (np.diff(frontal[:, 29:34, 0], axis=1) > 0).all()  # right brow, outwards
    assert (np.diff(frontal[:, 34:39, 0], axis=1) < 0).all()  # left brow, outwards
    assert (np.diff(frontal[:, 39:44, 0], axis=1) > 0).all()  # upper lip
    assert (np.diff(frontal[:, 43:47, 0], axis=1) < 0).all()  # lower lip
    assert (np.diff(frontal[:, 50:55, 0], axis=1) > 0).all()  # base of the nose
    heights = frontal[:, [31, 15, 52, 41, 45, 6], 1]
    assert (np.diff(heights, axis=1) > 0).all()


def test_the_mean_synthetic_frontal_face_is_its_own_mirror_image(imm_points):
    mean = imm_points[:, [0, 1, 4]].mean(axis=(0, 1))
    mean -= [mean[:, 0].mean(), 0]
    assert np.abs(mean - mean[IMM58.mirror] * [-1, 1]).max() < 4


def test_views_three_and_four_look_to_the_persons_right_and_left(imm_points):
    low, high = imm_points.min(axis=2)[..., 0], imm_points.max(axis=2)[..., 0]
    nose = (imm_points[:, :, 52, 0] - (low + high) / 2) / (high - low)
    assert (nose[:, 2] < -0.12).all()
    assert (nose[:, 3] > 0.12).all()
    assert np.abs(nose[:, [0, 1, 4]]).max() < 0.15


def test_synthetic_imm_faces_stand_where_and_as_large_as_the_real_ones(imm_points):
    """Mean centre and size of the real 240, in pixels, measured on their .asf files."""
    low, high = imm_points.min(axis=2), imm_points.max(axis=2)
    np.testing.assert_allclose(((low + high) / 2).mean(axis=(0, 1)), [324.5, 301], atol=8)
    np.testing.assert_allclose((high - low).mean(axis=(0, 1)), [188, 203], atol=8)
    assert (np.std((low + high)[:, 0] / 2, axis=0) > 8).all()


def test_the_spot_lights_the_right_of_the_picture():
    def right_over_left(view: int) -> float:
        _, picture, points_px = draw_imm_face(3, 1, view)
        right, left = (_patch(picture, (points_px[eye] + points_px[jaw]) / 2).mean() for eye, jaw in ((19, 9), (27, 3)))
        return right / left

    assert right_over_left(5) > 1.4 * right_over_left(1)


def test_a_complete_synthetic_imm_is_left_alone_and_another_is_not_overwritten(imm, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in imm.iterdir()}
    assert write_synthetic_imm(imm.parent, people=9, seed=99) == imm
    assert {path: path.stat().st_mtime_ns for path in imm.iterdir()} == before
    real = tmp_path / IMM_FOLDER / "01-1m.asf"
    real.parent.mkdir()
    real.write_text("keep")
    with pytest.raises(UserError, match=SYNTHETIC_NOTE):
        write_synthetic_imm(tmp_path, people=1, workers=1)
    assert real.read_text() == "keep"


def test_a_failed_synthetic_imm_cleans_up_after_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("foldmark.synthetic.imm.write_text", lambda path, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_synthetic_imm(tmp_path, people=1, workers=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("afile", "a file stands where its folder should be"),
        ("afile/x", "a file stands where its folder should be"),
        pytest.param("/proc/x", "choose another folder", marks=pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")),
        ("x" * 300, "shorten it"),
    ],
)
def test_a_folder_that_cannot_be_made_is_a_sentence(foldmark, workplace, folder, words):
    (workplace / "afile").write_text("keep")
    assert_refused(foldmark("synthetic", folder, "--train-faces", 2, "--test-faces", 1), folder, words)
    assert (workplace / "afile").read_text() == "keep"


def test_a_cache_that_cannot_be_made_is_a_sentence(foldmark, workplace, quick, monkeypatch):
    options = ["--set", quick, "--device", "cpu"]
    (workplace / "cache").write_text("keep")
    assert_refused(foldmark("train", *options), "cache", "a file stands where its folder should be")
    (workplace / "cache").unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("foldmark.synthetic.build.tempfile.mkdtemp", refuse)  # as in a read-only checkout
    assert_refused(foldmark("train", *options), "cache", "no permission to write here")
