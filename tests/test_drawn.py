"""Drawn faces: exact, seeded, in the published layout, and never half-written."""

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

from foldmark import drawn
from foldmark.drawn import detector_box, draw_face, write_drawn_faces
from foldmark.drawn import head as head_model
from foldmark.drawn.face import sample_geometry
from foldmark.drawn.view import View, landmarks_px, rotation_matrix
from foldmark.errors import UserError
from foldmark.faces import IBUG_FOLDER, TEST_XML, TRAIN_XML
from foldmark.markup import IBUG68


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_drawn_faces(tmp_path_factory.mktemp("drawn"), train_faces=4, test_faces=2, seed=3, workers=1)


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
    again = write_drawn_faces(tmp_path, train_faces=4, test_faces=2, seed=3, workers=2)
    assert files_of(again) == files_of(dataset)


def test_every_face_is_another_and_another_seed_draws_others(dataset, tmp_path):
    pictures = [content for name, content in files_of(dataset).items() if name.endswith(".jpg")]
    assert len(pictures) == len(set(pictures)) == 2 * (4 + 2)
    other = write_drawn_faces(tmp_path, train_faces=1, test_faces=0, seed=4, workers=1)
    assert (other / "drawn/trainset/00000.jpg").read_bytes() not in pictures


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
    rng = np.random.default_rng(0)
    head = head_model.sample_head(rng)
    view = View(rotation_matrix(np.radians(38), 0, 0), np.eye(3), np.zeros(3), 1.3, np.zeros(2), 1000.0)
    outline = landmarks_px(head, view)[:17]
    jaw = head_model.ibug68_xy(head)[:17]
    true_jaw = view.project(np.column_stack([jaw, head_model.front_z(head, jaw[:, 0], jaw[:, 1])]))
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
    marked = dataset / "drawn/trainset/00000.jpg"
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    marked.touch()
    touched = marked.stat().st_mtime_ns
    assert write_drawn_faces(dataset.parent, train_faces=9, test_faces=9, seed=99) == dataset
    after = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert after == before | {marked: touched}


def test_a_folder_without_labels_is_neither_used_nor_overwritten(tmp_path):
    own = tmp_path / IBUG_FOLDER / "mine.txt"
    own.parent.mkdir()
    own.write_text("keep")
    with pytest.raises(UserError, match="label files"):
        write_drawn_faces(tmp_path, train_faces=1, test_faces=0, workers=1)
    assert own.read_text() == "keep"


def test_a_killed_build_never_looks_complete_and_does_not_hinder_the_next(tmp_path):
    builder = multiprocessing.get_context("spawn").Process(
        target=write_drawn_faces, args=(tmp_path,), kwargs={"train_faces": 500, "test_faces": 0, "workers": 1}
    )
    builder.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert list(tmp_path.rglob("*.jpg")), "the builder was killed before it had written anything"
    assert not (tmp_path / IBUG_FOLDER).exists()
    finished = write_drawn_faces(tmp_path, train_faces=1, test_faces=0, workers=1)
    assert len(parse(finished / TRAIN_XML).getroot().findall("images/image")) == 2


def test_a_failed_build_cleans_up_after_itself(tmp_path, monkeypatch):
    def fail(rng):
        raise RuntimeError("no paint left")

    monkeypatch.setattr(drawn, "draw_face", fail)
    with pytest.raises(RuntimeError, match="no paint"):
        write_drawn_faces(tmp_path, train_faces=1, test_faces=0, workers=1)
    assert not list(tmp_path.iterdir())
