"""Mirror twins: found by name and box, joined so that what is right in both stays, and what is wrong in one halves."""

import numpy as np
import pytest

from foldmark.core import geometry
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.data.twins import find_twins, join_twins, read_picture_sizes


@pytest.fixture(scope="module")
def synthetic(synthetic_root):
    return read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


def test_every_drawn_face_has_its_twin(synthetic):
    twins = find_twins(synthetic)
    assert (twins >= 0).all()
    assert (twins[twins] == np.arange(len(synthetic))).all()
    assert all(
        {synthetic.pictures[row].count("_mirror"), synthetic.pictures[twin].count("_mirror")} == {0, 1}
        for row, twin in enumerate(twins)
    )


def test_true_points_are_left_as_they_are(synthetic):
    joined = join_twins(synthetic.points_px, synthetic, find_twins(synthetic))
    assert np.abs(joined - synthetic.points_px).max() < 0.02  # the label file has two decimals


def test_an_error_in_one_twin_is_halved_in_both(synthetic):
    twins = find_twins(synthetic)
    row, twin = 0, twins[0]
    wrong = synthetic.points_px.copy()
    wrong[row, 36, 0] += 8
    joined = join_twins(wrong, synthetic, twins)
    mirrored = int(np.flatnonzero(np.array(synthetic.markup.mirror) == 36)[0])
    assert joined[row, 36, 0] - synthetic.points_px[row, 36, 0] == pytest.approx(4, abs=0.02)
    assert joined[twin, mirrored, 0] - synthetic.points_px[twin, mirrored, 0] == pytest.approx(-4, abs=0.02)


def test_a_face_without_twin_stays(synthetic):
    alone = synthetic.take(np.array([picture.count("_mirror") == 0 for picture in synthetic.pictures]))
    twins = find_twins(alone)
    assert (twins == -1).all()
    assert (join_twins(alone.points_px, alone, twins) == alone.points_px).all()


def test_a_twin_picture_with_its_box_elsewhere_is_no_twin(synthetic):
    twins = find_twins(synthetic)
    boxes = synthetic.boxes_px.copy()
    boxes[twins[0], 0] += 2 * boxes[0, 2]
    from dataclasses import replace

    assert find_twins(replace(synthetic, boxes_px=boxes))[0] == -1


def test_real_twins_are_found_and_agree(real_faces):
    twins = find_twins(real_faces)
    assert (twins >= 0).mean() > 0.98
    rows = np.flatnonzero(twins >= 0)[:400]
    widths = read_picture_sizes(real_faces)[:, 0]
    off = [
        np.abs(
            geometry.apply(geometry.flip(widths[row]), real_faces.points_px[twins[row]])[list(real_faces.markup.mirror)]
            - real_faces.points_px[row]
        ).max()
        for row in rows
    ]
    assert np.median(off) <= 1.5


def test_the_real_test_list_has_twins(real_root):
    faces = read_ibug(real_root / IBUG_FOLDER / TEST_XML, with_points=False)
    assert (find_twins(faces) >= 0).any()
