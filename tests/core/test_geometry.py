"""The affine algebra, and that a crop's affine says exactly what the cutter and the augmentation do to a picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldmark.core import geometry
from foldmark.core.config import AugmentConfig, CropConfig
from foldmark.core.markup import IBUG68, IMM58
from foldmark.data.crops import cut, store_size, warp
from foldmark.train.plan import jitter_affines

edges = st.floats(-300, 3000)
sides = st.floats(20, 2600)
boxes = st.tuples(edges, edges, sides, sides).map(np.array)


@given(boxes, st.integers(0, 2**32 - 1), st.sampled_from([((128, 128), True), ((224, 224), False), ((240, 180), False)]))
@settings(max_examples=200)
def test_crop_then_augment_then_back_is_the_identity(box_px, seed, kind):
    size, square = kind
    config = CropConfig(size=size, square=square)
    width, height = store_size(config)
    enlargement = config.enlargement * width / size[0]
    if square:
        left, top, wide = geometry.square_window(box_px, enlargement)
        high = wide
    else:
        left, top, wide, high = geometry.box_window(box_px, enlargement)
    px_to_store = geometry.resize(width / wide, height / high, left, top)
    rng = np.random.default_rng(seed)
    centre = geometry.centre_affine((width, height), size)
    store_to_crop, _ = jitter_affines(AugmentConfig(rotate=90, scale=0.5, shift=0.3), centre[None], size, rng, np.ones(1))
    px_to_crop = geometry.compose(store_to_crop[0], px_to_store)
    points_px = rng.uniform(-3000, 3000, (68, 2))
    points_crop = geometry.apply(px_to_crop, points_px)
    assert np.abs(geometry.apply(geometry.invert(px_to_crop), points_crop) - points_px).max() < 1e-3


@given(boxes, st.floats(0.5, 4), st.floats(-0.5, 0.5))
def test_square_window_is_centred_on_the_box_or_so_far_below_to_a_pixel(box_px, enlargement, down):
    left, top, side = geometry.square_window(box_px, enlargement, down)
    centre = box_px[:2] + box_px[2:] / 2 + [0, down * max(box_px[2:])]
    assert abs(side - max(box_px[2:]) * enlargement) <= 1
    assert np.abs(np.array([left, top]) + side / 2 - centre).max() <= 1.01


@given(st.floats(0.2, 5), st.floats(-180, 180), st.floats(-500, 500), st.integers(0, 2**32 - 1))
def test_align_finds_the_similarity_that_moved_the_points(scale, degrees, shift, seed):
    points = np.random.default_rng(seed).uniform(0, 128, (68, 2))
    moved_by = geometry.similarity((128, 128), (128, 128), scale=scale, degrees=degrees, shift=(shift, -shift))
    found = geometry.align(geometry.apply(moved_by, points), points)
    assert np.abs(geometry.apply(geometry.compose(found, moved_by), points) - points).max() < 1e-6


def dot_picture(height: int, width: int, at: np.ndarray, sigma: float = 6) -> np.ndarray:
    """A bright smooth dot at x, y: its centre of mass is a point that resampling must carry along."""
    y, x = np.mgrid[:height, :width]
    return (255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))).astype(np.uint8)


def centre_of_mass(picture: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weight = picture.astype(float)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("window", [(30, 20, 140, 140), (50, 60, 101, 77), (-40, -25, 200, 200), (60, 30, 300, 260)])
@pytest.mark.parametrize("side", [90, 180])
def test_the_affine_says_where_the_cutter_puts_a_point(window, side):
    at = np.array([101.3, 88.6])
    crop = cut(dot_picture(180, 220, at), window, (side, side))
    affine = geometry.resize(side / window[2], side / window[3], window[0], window[1])
    assert np.abs(centre_of_mass(crop) - geometry.apply(affine, at[None])[0]).max() < 0.15


def test_the_affine_says_where_augmentation_puts_a_point():
    rng = np.random.default_rng(0)
    store, at = dot_picture(160, 180, np.array([95.0, 84.0])), np.array([[95.0, 84.0]])
    centre = np.repeat(geometry.centre_affine((180, 160), (128, 100))[None], 20, axis=0)
    for affine in jitter_affines(AugmentConfig(), centre, (128, 100), rng, np.ones(20))[0]:
        assert np.abs(centre_of_mass(warp(store, affine, (128, 100))) - geometry.apply(affine, at)[0]).max() < 0.15


def test_a_box_that_leaves_the_picture_is_padded_not_clipped():
    picture = np.full((50, 60), 100, np.uint8)
    picture[:, 0] = 7
    crop = cut(picture, (-20, 10, 40, 40), (40, 40))
    assert crop.shape == (40, 40)
    assert (crop[:, :21] == 7).all()
    assert (crop[:, 21:] == 100).all()


def test_the_middle_of_a_store_crop_is_cut_pixel_for_pixel():
    store = np.random.default_rng(0).integers(0, 255, (140, 180), dtype=np.uint8)
    assert np.array_equal(warp(store, geometry.centre_affine((180, 140), (128, 100)), (128, 100)), store[20:120, 26:154])


def test_many_faces_are_aligned_as_each_alone():
    rng = np.random.default_rng(0)
    faces, target = rng.normal(size=(5, 68, 2)), rng.normal(size=(68, 2))
    each = np.stack([geometry.align(face, target) for face in faces])
    assert np.allclose(geometry.align(faces, target), each, rtol=0, atol=1e-12)


@pytest.mark.parametrize("markup", [IBUG68, IMM58])
def test_mirroring_twice_changes_nothing(markup):
    assert np.array_equal(markup.mirror[markup.mirror], np.arange(markup.count))
    assert sorted(index for region in markup.regions.values() for index in region) == list(range(markup.count))


@pytest.mark.parametrize(
    ("markup", "left", "right"),
    [(IBUG68, "left eye", "right eye"), (IBUG68, "left brow", "right brow"), (IMM58, "left eye", "right eye")],
)
def test_a_flip_swaps_the_sides(markup, left, right):
    assert set(markup.mirror[markup.regions[left]]) == set(markup.regions[right])


def test_a_flipped_real_face_is_its_mirror_twin(real_faces):
    """The published twins were flipped by others: our flip and swap must agree with them on every face."""
    row_of = {picture: row for row, picture in enumerate(real_faces.pictures)}
    checked = 0
    for picture, twin in row_of.items():
        row = row_of.get(picture.replace("_mirror", "").rsplit(".", 1)[0] + "." + picture.rsplit(".", 1)[1])
        if "_mirror" not in picture or row is None:
            continue
        width = real_faces.sizes_px[row, 0]
        flipped = geometry.apply(geometry.flip(width), real_faces.points_px[row])[IBUG68.mirror]
        # Twins were rounded to whole pixels on their own, and some were cut a pixel apart.
        assert np.abs(flipped - real_faces.points_px[twin]).max() <= 2.5, picture
        checked += 1
    assert checked > 1000


def test_the_imm_mirror_pairs_are_those_of_the_real_faces(real_root):
    """On the mean frontal face, each point's partner is the one that lies nearest to its mirror image."""
    shapes = []
    for file in sorted((real_root / "imm_face_db").glob("*-1?.asf")):
        rows = [line.split() for line in file.read_text().splitlines()]
        shapes.append([[float(row[2]) * 640, float(row[3]) * 480] for row in rows if len(row) >= 7 and row[0].isdigit()])
    mean = np.mean(shapes, axis=0)
    axis = mean[:, 0].mean()
    mirrored = mean * [-1, 1] + [2 * axis, 0]
    distances = np.linalg.norm(mirrored[:, None] - mean[None], axis=2)
    assert len(shapes) == 40
    assert (distances[np.arange(58), IMM58.mirror] < 12).all()
    inner = [index for index in range(58) if distances[index].min() == distances[index, IMM58.mirror[index]]]
    assert len(inner) >= 54
