"""No photo is ever split over folds, and the split file can be read, edited and reused."""

import csv
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import KFold

from foldmark.core.config import FoldsConfig
from foldmark.core.errors import UserError
from foldmark.data.folds import group_faces, hold_out_last, make_folds, make_split, read_split, write_split
from foldmark.data.ibug import photo_name, read_ibug
from foldmark.data.lookalikes import find_alike, inspect_faces
from foldmark.data.sets import find_data
from foldmark.runs.experiment import Settings, make_experiment
from foldmark.runs.places import Places
from foldmark.runs.run import open_run
from tests.conftest import assert_refused


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("helen/trainset/12_1.jpg", "helen/trainset/12_1_mirror.jpg", True),
        ("lfpw/trainset/image_0735.png", "lfpw/trainset/image_0735_mirror.jpg", True),
        ("afw/134212_1.jpg", "afw/134212_2_mirror.jpg", True),
        ("lfpw/trainset/image_0735.png", "lfpw/trainset/image_0736.png", False),
        ("helen/trainset/12_1.jpg", "helen/testset/12_1.jpg", False),
        ("synthetic/trainset/00012.jpg", "synthetic/trainset/00013.jpg", False),
    ],
)
def test_faces_of_one_photo_share_its_name(one, other, same):
    assert (photo_name(one) == photo_name(other)) is same


@pytest.fixture(scope="module")
def real_groups(real_faces):
    return group_faces(real_faces)


def split_groups(groups, folds):
    return sum(len(set(folds[groups == group])) > 1 for group in np.unique(groups))


def test_on_real_faces_no_group_is_split_and_plain_kfold_would_split_many(real_faces, real_groups):
    folds = make_folds(real_faces, real_groups, 5, seed=0)
    assert split_groups(real_groups, folds) == 0
    plain = np.empty(len(real_faces), int)
    for fold, (_, rows) in enumerate(KFold(5, shuffle=True, random_state=0).split(plain)):
        plain[rows] = fold
    assert split_groups(real_groups, plain) > 1000


def test_on_real_faces_twins_and_copies_are_together(real_faces, real_groups):
    import hashlib

    group_of_content, group_of_photo = {}, {}
    for row, picture in enumerate(real_faces.pictures):
        content = hashlib.sha256(real_faces.path(row).read_bytes()).digest()
        assert group_of_content.setdefault(content, real_groups[row]) == real_groups[row]
        twin = picture.replace("_mirror", "").rsplit(".", 1)[0]
        assert group_of_photo.setdefault(twin, real_groups[row]) == real_groups[row]
    # Each face is there with its twin, so there are at most half as many groups as faces.
    assert len(set(real_groups)) <= len(real_faces) / 2


def test_on_real_faces_sources_and_sizes_are_balanced(real_faces, real_groups):
    folds = make_folds(real_faces, real_groups, 5, seed=0)
    for source in set(real_faces.sources):
        here = np.bincount(folds[np.array(real_faces.sources) == source], minlength=5)
        assert here.max() - here.min() <= 0.05 * here.sum() + 8


@pytest.fixture
def faces(data_root):
    return read_ibug(data_root / "ibug_300W_large_face_landmark_dataset/labels_ibug_300W_train.xml", with_points=True)


def test_byte_identical_pictures_are_one_group(faces):
    first, other = (
        faces.path(0),
        next(row for row in range(len(faces)) if photo_name(faces.pictures[row]) != photo_name(faces.pictures[0])),
    )
    before = group_faces(faces)
    assert before[0] != before[other]
    faces.path(other).write_bytes(first.read_bytes())
    after = group_faces(faces)
    assert after[0] == after[other]
    assert len(set(after)) == len(set(before)) - 1


def test_the_same_seed_makes_the_same_folds_and_another_seed_others(faces):
    groups = group_faces(faces)
    assert np.array_equal(make_folds(faces, groups, 3, seed=4), make_folds(faces, groups, 3, seed=4))
    assert not np.array_equal(make_folds(faces, groups, 3, seed=4), make_folds(faces, groups, 3, seed=5))


def edited(path, change):
    rows = list(csv.DictReader(path.open()))
    change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_a_split_file_is_read_back_in_any_order_and_edited(faces, tmp_path):
    groups, path = group_faces(faces), tmp_path / "split.csv"
    folds = make_folds(faces, groups, 3, seed=0)
    write_split(path, faces, groups, folds)
    edited(path, lambda rows: rows.reverse())
    assert np.array_equal(read_split(path, faces), folds)
    moved = groups[0]

    def move(rows):
        for row in rows:
            if row["group"] == str(moved):
                row["fold"] = str((folds[0] + 1) % 3)

    edited(path, move)
    assert (read_split(path, faces)[groups == moved] == (folds[0] + 1) % 3).all()


def test_faces_in_fold_minus_one_are_never_held_out(faces, tmp_path):
    groups, path = group_faces(faces), tmp_path / "split.csv"
    folds = hold_out_last(faces, groups, 5)
    write_split(path, faces, groups, folds)
    assert np.array_equal(read_split(path, faces), folds)
    assert set(folds) == {-1, 0}
    assert len(set(groups[folds == 0])) == 5
    with pytest.raises(UserError, match="hold_out_last"):
        hold_out_last(faces, groups, len(set(groups)))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda rows: rows[0].update(fold="x"), "not a number"),
        (lambda rows: rows[0].update(fold="-2"), "not a number"),
        (lambda rows: [row.update(fold="-1") for row in rows], "at least two"),
        (lambda rows: rows[0].update(fold=str(1 - int(rows[0]["fold"]))), "keep a photo in one fold"),
        (lambda rows: rows.pop(), "other data"),
        (lambda rows: [row.update(fold="0") for row in rows], "at least two"),
        (lambda rows: [row.update(fold=str(2 * int(row["fold"]))) for row in rows], "without a gap"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(faces, tmp_path, change, word):
    groups, path = group_faces(faces), tmp_path / "split.csv"
    write_split(path, faces, groups, make_folds(faces, groups, 2, seed=0))
    edited(path, change)
    with pytest.raises(UserError, match=word):
        read_split(path, faces)


def test_a_split_file_that_calls_a_twin_a_group_of_its_own_is_refused(faces, tmp_path):
    rows = np.arange(len(faces))
    write_split(tmp_path / "split.csv", faces, rows, np.array(["_mirror" in picture for picture in faces.pictures], int))
    with pytest.raises(UserError, match="mirror twin"):
        read_split(tmp_path / "split.csv", faces)


def test_on_real_faces_photos_that_look_alike_share_a_fold(real_faces, real_groups):
    sights = inspect_faces(real_faces)
    groups = group_faces(real_faces, sights)
    # What was one group before is one still.
    assert len(set(zip(real_groups.tolist(), groups.tolist(), strict=True))) == len(set(real_groups))
    folds = make_split(real_faces, FoldsConfig(), groups)
    pairs = np.array(find_alike(sights))
    assert (real_groups[pairs[:, 0]] != real_groups[pairs[:, 1]]).sum() > 40
    assert (folds[pairs[:, 0]] == folds[pairs[:, 1]]).all()
    assert np.ptp(np.bincount(folds)) <= 20


def near_copy(faces, source, target):
    size = tuple(faces.sizes_px[target].astype(int))
    with Image.open(faces.path(source)) as picture:
        picture.resize((150, 150)).resize(size).save(faces.path(target), quality=60)


def open_folds(faces_root, workplace, *overrides):
    places = Places(workplace)
    settings = Settings("synthetic", "mine", ["crop.size=32", *overrides])
    data = find_data(faces_root, "ibug")
    run = open_run(places, "mine", make_experiment(places, settings, data).config, data)
    return run.folds, [row["group"] for row in csv.DictReader(run.folder.split_file.open())]


@pytest.mark.parametrize("alike", [True, False])
def test_the_default_split_joins_a_near_copy_and_shows_it_by_the_group(faces, data_root, workplace, alike):
    # A face and its twin and, of another photo, a face that is a near copy of it.
    first = [row for row in range(len(faces)) if faces.groups[row] == faces.groups[0]]
    others = [row for row in range(len(faces)) if faces.groups[row] != faces.groups[0]]
    near_copy(faces, first[0], others[0])
    folds, groups = open_folds(data_root, workplace, "folds.count=12", f"folds.alike={str(alike).lower()}")
    assert (groups[first[0]] == groups[others[0]]) is alike
    if alike:
        assert folds[first[0]] == folds[others[0]]


def test_a_split_that_is_there_is_kept_whatever_looks_alike(faces, data_root, workplace):
    folds, _ = open_folds(data_root, workplace)
    apart = next(row for row in range(len(faces)) if folds[row] != folds[0])
    near_copy(faces, 0, apart)
    assert np.array_equal(open_folds(data_root, workplace)[0], folds)


def test_a_split_that_is_missing_or_of_other_data_says_what_mends_it(foldmark, synthetic_root, finished, quick, workplace):
    shutil.copytree(finished / "runs", workplace / "runs")
    options = ["train", "--data-root", synthetic_root, "--device", "cpu", "--name"]
    split, other = workplace / "runs/a/split.csv", workplace / "other.csv"
    other.write_text("".join(split.read_text().splitlines(keepends=True)[:-1]))
    shutil.copy(other, split)
    assert_refused(foldmark(*options, "a", "--set", quick), "split.csv", "other data", "restore the data", "new NAME=")
    split.unlink()
    assert_refused(foldmark(*options, "a", "--set", quick), "split.csv: there is no such split file; restore it", "new NAME=")
    named = [*options, "b", "--set", f"{quick} folds.file="]
    assert_refused(foldmark(*named[:-1], f"{named[-1]}{other}"), "other.csv", "name a split of this data in folds.file")
    assert_refused(foldmark(*named[:-1], f"{named[-1]}none.csv"), "none.csv", "name an existing file in folds.file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only POSIX systems have pipes in folders")
def test_a_split_file_that_is_a_pipe_or_a_folder_is_refused(faces, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, word in (("pipe.csv", "a pipe"), ("folder.csv", "a folder")):
        with pytest.raises(UserError, match=word):
            read_split(tmp_path / name, faces)


def test_on_real_faces_the_standard_split_is_the_papers(real_faces):
    groups = group_faces(real_faces)
    folds = make_split(real_faces, FoldsConfig(split="300w"), groups)
    tested = np.array(["/testset/" in picture for picture in real_faces.pictures])
    assert (folds[tested] == 0).all()
    assert split_groups(groups, folds) == 0
    # Only a training photo that is also a test photo leaves the training faces.
    assert set(folds) == {0, -1}
    assert (folds[~tested] == 0).sum() <= 2


def test_the_standard_split_needs_its_test_faces(faces):
    with pytest.raises(UserError, match=r"folds.split: 300w .* no face in helen/testset"):
        make_split(faces, FoldsConfig(split="300w"), group_faces(faces))


def test_one_split_is_asked_for():
    with pytest.raises(ValueError, match="two splits"):
        FoldsConfig(split="300w", hold_out_last=8)
