"""The data doctor: a sound set is safe, and each kind of defect, planted in a drawn one, is found and named."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foldmark.core.config import Config
from foldmark.core.errors import UserError
from foldmark.core.markup import IBUG68
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML
from foldmark.data.imm import find_imm, read_imm
from foldmark.data.labels import find_impossible
from foldmark.data.sets import Data
from foldmark.doctor.annotations import find_crossed_lines, measure_misfit
from foldmark.doctor.diagnosis import Diagnosis, diagnose
from tests.conftest import assert_refused

ORIGINAL = "synthetic/trainset/00003.jpg"
TWIN = "synthetic/trainset/00003_mirror.jpg"
OTHER = "synthetic/trainset/00007.jpg"

DAMAGED = "training pictures damaged or unlike their labels"
NO_FACE = "points that form no face"
CROSSED = "lines that cross themselves"
FLIP_RULE = "mirror twins that break the flip rule"
OTHER_PICTURE = "mirror twins with another picture"
LEAKED = "photos both in train and test"


@pytest.fixture
def folder(data_root) -> Path:
    return data_root / IBUG_FOLDER


def diagnosed(folder: Path, **settings) -> Diagnosis:
    return diagnose(Data("ibug", folder, synthetic=True), Config.model_validate(settings))


def found(diagnosis: Diagnosis) -> dict[str, list[str]]:
    return {finding.check: finding.found for finding in diagnosis.findings if finding.found}


def edit_face(folder: Path, picture: str, change) -> None:
    """Rewrite the box and points of one face of the training list."""
    path = folder / TRAIN_XML
    text = path.read_text()
    whole = re.search(rf"<image file='{re.escape(picture)}'.*?</image>", text, re.S).group()
    path.write_text(text.replace(whole, change(whole)))


def move_points(folder: Path, picture: str, move) -> None:
    """Rewrite the points (68, 2) of one face of the training list."""

    def change(whole: str) -> str:
        points = np.array(re.findall(r"x='([-\d.]+)' y='([-\d.]+)'", whole), dtype=float)
        moved = iter(move(points).round(2).tolist())
        return re.sub(r"x='[-\d.]+' y='[-\d.]+'", lambda _: "x='{}' y='{}'".format(*next(moved)), whole)

    edit_face(folder, picture, change)


def test_a_sound_set_is_safe_and_counted(folder):
    diagnosis = diagnosed(folder)
    assert diagnosis.safe
    assert diagnosis.counts == {"synthetic": {"train": 48, "test": 8}}
    assert sum(diagnosis.folds.values()) == 48
    assert set(found(diagnosis)) <= {"boxes that leave the picture", "faces with a point outside the picture",
                                     "faces with a point outside the box", "faces that the crop would cut"}  # fmt: skip


def test_the_share_of_cut_faces_follows_the_crop(folder):
    cut = [len(found(diagnosed(folder, crop={"enlargement": by})).get("faces that the crop would cut", [])) for by in (1, 1.4, 3)]
    assert cut[0] > cut[1] >= cut[2] == 0


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_bomb(path):
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    Image.new("1", (20_000, 20_000)).save(path, "PNG")
    Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "is damaged"),
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.write_bytes(b"text"), "is not a picture"),
        (save_bomb, "million pixels"),
        (lambda path: Image.open(path).resize((90, 80)).save(path), "label file says"),
    ],
)
def test_a_picture_that_stops_training_is_unsafe(folder, damage, words):
    damage(folder / ORIGINAL)
    diagnosis = diagnosed(folder)
    assert not diagnosis.safe
    (told,) = found(diagnosis)[DAMAGED]
    assert told.startswith(ORIGINAL)
    assert words in told
    assert diagnosed(folder, data={"skip_damaged": True}).safe


def test_a_damaged_test_picture_is_unsafe_too(folder):
    truncate(folder / "synthetic/testset/00001.jpg")
    diagnosis = diagnosed(folder)
    assert not diagnosis.safe
    assert len(found(diagnosis)["test pictures damaged or unlike their labels"]) == 1


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have pipes in folders")
def test_a_pipe_instead_of_a_picture_does_not_hang(folder):
    (folder / ORIGINAL).unlink()
    os.mkfifo(folder / ORIGINAL)
    assert "not a file" in found(diagnosed(folder))[DAMAGED][0]


def save_turned(picture, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, "JPEG", exif=exif, quality=95)


def save_deep(picture, path):
    Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257).save(path, "PNG")


@pytest.mark.parametrize(
    ("save", "check"),
    [
        (save_turned, "pictures turned by EXIF"),
        (save_deep, "pictures with 16 bits"),
        (lambda picture, path: picture.convert("L").save(path, "JPEG"), "pictures grey"),
        (lambda picture, path: picture.convert("CMYK").save(path, "JPEG"), "pictures CMYK, palette or other colours"),
        (lambda picture, path: picture.convert("P").save(path, "GIF"), "pictures CMYK, palette or other colours"),
        (lambda picture, path: picture.save(path, "PNG"), "pictures with another format than their name says"),
    ],
)
def test_an_odd_picture_is_named_and_safe(folder, save, check):
    with Image.open(folder / ORIGINAL) as picture:
        picture.load()
    save(picture, folder / ORIGINAL)
    diagnosis = diagnosed(folder)
    assert found(diagnosis)[check] == [ORIGINAL]
    assert diagnosis.safe


def test_a_blank_picture_is_named(folder):
    for name in (ORIGINAL, OTHER):
        with Image.open(folder / name) as picture:
            size = picture.size
        Image.new("RGB", size, "grey").save(folder / name)
    blank = found(diagnosed(folder))
    assert blank["pictures blank"] == [ORIGINAL, OTHER]
    # Blank pictures are all alike; that is no duplicate.
    assert "photos in train twice, alike to the eye" not in blank


def test_a_box_that_does_not_fit_its_picture_is_unsafe(folder):
    edit_face(folder, ORIGINAL, lambda whole: re.sub(r"left='[-\d]+'", "left='9000'", whole))
    diagnosis = diagnosed(folder)
    assert "does not fit it" in found(diagnosis)[DAMAGED][0]
    assert not diagnosis.safe


def test_boxes_and_points_off_the_picture_are_counted(folder):
    edit_face(folder, ORIGINAL, lambda whole: re.sub(r"left='[-\d]+'", "left='-40'", whole))
    assert ORIGINAL in found(diagnosed(folder))["boxes that leave the picture"]
    move_points(folder, OTHER, lambda points: points - points.min(axis=0) - 5)
    assert OTHER in found(diagnosed(folder))["faces with a point outside the picture"]


def wild(points):
    points = points.copy()
    points[30] = 900, 900
    return points


@pytest.mark.parametrize(
    "move",
    [
        lambda points: points[:, ::-1],  # x and y swapped
        lambda points: points[IBUG68.mirror],  # left and right swapped
        lambda points: points.max(axis=0) - points,  # upside down
        lambda points: np.roll(points, 20, axis=0),  # out of order
        wild,
    ],
)
def test_points_that_form_no_face_are_unsafe(folder, move):
    move_points(folder, ORIGINAL, move)
    diagnosis = diagnosed(folder)
    (told,) = found(diagnosis)[NO_FACE]
    assert told.startswith(ORIGINAL)
    assert not diagnosis.safe
    assert next(iter(diagnosis.odd)) == 6  # its row, to be drawn first


def shrink_box(whole):
    return re.sub(r"width='(\d+)' height='(\d+)'>\n *<part", "width='2' height='2'>\n<part", whole)


IMPOSSIBLE = {
    "all on one spot": lambda folder, picture: move_points(folder, picture, lambda points: np.full_like(points, 50)),
    "all on one line": lambda folder, picture: move_points(folder, picture, lambda points: points * [1, 0] + [0, 30]),
    "eyes on one spot": lambda folder, picture: move_points(
        folder, picture, lambda points: points[[*range(36), 45, *range(37, 68)]]
    ),
    "box of two pixels": lambda folder, picture: edit_face(folder, picture, shrink_box),
    "box beside the points": lambda folder, picture: move_points(folder, picture, lambda points: points + [4000, 0]),
}


@pytest.mark.parametrize("spoil", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_face_that_cannot_be_right_is_listed_by_the_doctor_and_refused_by_training(folder, spoil):
    spoil(folder, ORIGINAL)
    data = Data("ibug", folder, synthetic=True)
    diagnosis = diagnose(data, Config())
    (listed,) = found(diagnosis)["faces that cannot be right"]
    assert listed.startswith(f"{ORIGINAL}: ")
    assert not diagnosis.safe
    assert next(iter(diagnosis.odd)) == 6
    with pytest.raises(UserError, match=f"cannot be right: {re.escape(listed)}"):
        data.train  # noqa: B018


def test_a_set_of_which_no_face_can_be_right_is_checked_without_a_crash(foldmark, folder, data_root):
    path = folder / TRAIN_XML
    path.write_text(re.sub(r"x='[-\d.]+' y='[-\d.]+'", "x='7' y='7'", path.read_text()))
    done = foldmark("check", "--data-root", data_root)
    assert done.returncode == 2
    assert "training is NOT safe: faces that cannot be right" in done.stdout
    assert_refused(foldmark("train", "--data-root", data_root), "cannot be right", "and 43 more", "make check")


def test_a_face_that_is_merely_odd_is_listed_and_trained_on(folder):
    move_points(folder, ORIGINAL, wild)
    data = Data("ibug", folder, synthetic=True)
    assert not diagnose(data, Config()).safe
    assert len(data.train) == 48


def test_no_real_face_is_impossible(real_faces, real_root):
    assert not find_impossible(real_faces)
    assert not find_impossible(read_imm(find_imm(real_root)))


def test_a_third_of_the_set_being_wrong_does_not_hide_it(folder):
    names = [f"synthetic/trainset/{index:05d}.jpg" for index in range(14)]
    for name in names:
        move_points(folder, name, lambda points: points[:, ::-1])
    assert sorted(told.split(":")[0] for told in found(diagnosed(folder))[NO_FACE]) == names


def test_eyelids_in_the_wrong_order_are_a_warning(folder):
    def swap(points):
        points = points.copy()
        points[[37, 41]] = points[[41, 37]]
        return points

    move_points(folder, ORIGINAL, swap)
    diagnosis = diagnosed(folder)
    assert found(diagnosis)[CROSSED] == [f"{ORIGINAL}: left eye"]
    assert 6 in diagnosis.odd


def test_a_twin_that_was_shifted_or_not_swapped_is_unsafe(folder):
    move_points(folder, TWIN, lambda points: points + [12, 0])
    move_points(folder, "synthetic/trainset/00005_mirror.jpg", lambda points: points[IBUG68.mirror])
    diagnosis = diagnosed(folder)
    assert found(diagnosis)[FLIP_RULE] == [TWIN, "synthetic/trainset/00005_mirror.jpg"]
    assert not diagnosis.safe


def test_a_twin_whose_picture_was_not_flipped_is_unsafe(folder):
    shutil.copy(folder / ORIGINAL, folder / TWIN)
    diagnosis = diagnosed(folder)
    assert found(diagnosis)[OTHER_PICTURE] == [TWIN]
    assert not diagnosis.safe


def copy_face(folder: Path, source: str, target: str, save) -> None:
    """Give `target` the picture of `source`, saved again, and its labels."""
    with Image.open(folder / source) as picture:
        picture.load()
    save(picture, folder / target)
    text = (folder / TRAIN_XML).read_text()
    whole = re.search(rf"<image file='{re.escape(source)}'.*?</image>", text, re.S).group()
    edit_face(folder, target, lambda _: whole.replace(source, target))


def test_a_photo_twice_in_train_is_told_apart_by_bytes_and_to_the_eye(folder):
    copy_face(folder, ORIGINAL, OTHER, lambda _, path: shutil.copy(folder / ORIGINAL, path))
    told = found(diagnosed(folder))
    assert told["photos in train twice, same bytes"] == [f"{ORIGINAL} = {OTHER}"]
    # The kit keeps such copies in one fold by itself.
    assert "photos alike in different folds" not in told
    copy_face(
        folder, ORIGINAL, OTHER, lambda picture, path: picture.resize((200, 200)).resize(picture.size).save(path, quality=60)
    )
    told = found(diagnosed(folder))
    assert "photos in train twice, same bytes" not in told
    assert told["photos in train twice, alike to the eye"] == [f"{ORIGINAL} = {OTHER}"]


def test_near_copies_are_kept_in_one_fold_and_in_different_folds_are_a_warning(folder):
    for index in range(8, 12):
        copy_face(folder, ORIGINAL, f"synthetic/trainset/{index:05d}.jpg", lambda picture, path: picture.save(path, quality=50))
    assert "photos alike in different folds" not in found(diagnosed(folder))
    assert found(diagnosed(folder, folds={"alike": False}))["photos alike in different folds"]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_training_photo_in_the_test_list_is_leakage(folder, mirrored):
    with Image.open(folder / ORIGINAL) as picture:
        picture.load()
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.save(folder / "synthetic/testset/00002.jpg", quality=70)
    diagnosis = diagnosed(folder)
    (told,) = found(diagnosis)[LEAKED]
    assert "trainset/00003" in told
    assert "testset/00002" in told
    # Training is as good as before; it is the score that flatters.
    assert diagnosis.safe


def test_a_face_listed_twice_is_a_warning(folder):
    edit_face(folder, ORIGINAL, lambda whole: whole + whole)
    assert found(diagnosed(folder))["faces listed twice"] == [ORIGINAL]


def test_folds_that_cannot_be_made_are_unsafe_and_uneven_ones_a_warning(folder):
    diagnosis = diagnosed(folder, folds={"count": 99})
    assert "folds.count" in found(diagnosis)["folds"][0]
    assert not diagnosis.safe
    text = (folder / TRAIN_XML).read_text().replace("synthetic/trainset/0000", "helen/photo_0000").replace("_mirror", "")
    shutil.copytree(folder / "synthetic/trainset", folder / "helen")
    for path in sorted((folder / "helen").glob("0000?.jpg")):
        path.rename(path.with_name(f"photo_{path.name}"))
    (folder / TRAIN_XML).write_text(text)
    assert found(diagnosed(folder, folds={"count": 3}))["folds of uneven size"]


def test_a_split_file_that_splits_a_photo_is_unsafe(folder, tmp_path):
    from foldmark.data.folds import write_split
    from foldmark.data.ibug import read_ibug

    faces = read_ibug(folder / TRAIN_XML, with_points=True)
    # Every face a group of its own, in alternating folds: what a plain K-fold would do.
    write_split(tmp_path / "mine.csv", faces, np.arange(48), np.arange(48) % 2)
    diagnosis = diagnosed(folder, folds={"file": str(tmp_path / "mine.csv")})
    assert "is in folds 0 and 1" in found(diagnosis)["folds"][0]
    assert not diagnosis.safe
    # The same file under two names, in two folds.
    photos = np.unique(faces.groups, return_inverse=True)[1]
    first, second = (folder / faces.pictures[np.flatnonzero(photos == photo)[0]] for photo in (0, 1))
    second.write_bytes(first.read_bytes())
    write_split(tmp_path / "mine.csv", faces, photos, photos % 2)
    diagnosis = diagnosed(folder, folds={"file": str(tmp_path / "mine.csv")})
    assert len(found(diagnosis)["photos split over folds"]) == 1
    assert not diagnosis.safe


def test_imm_is_checked_too_and_its_one_wall_is_no_duplicate(real_root):
    diagnosis = diagnose(Data("imm", find_imm(real_root), synthetic=False), Config())
    assert diagnosis.safe
    assert found(diagnosis) == {}


def test_a_missing_test_list_is_a_warning(folder):
    (folder / TEST_XML).unlink()
    diagnosis = diagnosed(folder)
    assert found(diagnosis)["test list missing"] == [TEST_XML]
    assert diagnosis.safe


def test_the_command_writes_table_report_and_sheet_and_its_exit_code_says_safe(foldmark, data_root, folder, workplace):
    done = foldmark("check", "--data-root", data_root)
    assert done.returncode == 0, done.stderr
    assert "training is safe." in done.stdout
    report = json.loads((workplace / "runs/check/check.json").read_text())
    assert report["safe"] is True
    assert not (workplace / "runs/check/odd-faces.png").exists()
    move_points(folder, ORIGINAL, lambda points: points[:, ::-1])
    done = foldmark("check", "--data-root", data_root)
    assert done.returncode == 2
    assert f"NOT safe: {NO_FACE}" in done.stdout
    assert "Traceback" not in done.stderr
    report = json.loads((workplace / "runs/check/check.json").read_text())
    assert report["safe"] is False
    (finding,) = [finding for finding in report["findings"] if finding["check"] == NO_FACE]
    assert (finding["level"], finding["count"], finding["of"]) == ("unsafe", 1, 48)
    with Image.open(workplace / "runs/check/odd-faces.png") as sheet:
        assert sheet.width > 200
    assert {path.name for path in workplace.iterdir()} == {"configs", "runs"}


def test_no_real_face_is_called_none_and_few_cross_their_lines(real_faces, real_root):
    assert not measure_misfit(real_faces).wrong.any()
    assert len(find_crossed_lines(real_faces)) == 18
    assert not measure_misfit(read_imm(find_imm(real_root))).wrong.any()


def test_unswapped_real_faces_are_found(real_faces):
    from dataclasses import replace

    points_px = real_faces.points_px.copy()
    points_px[::50] = points_px[::50][:, IBUG68.mirror]
    assert np.array_equal(np.flatnonzero(measure_misfit(replace(real_faces, labels_px=points_px)).wrong), np.arange(0, 4416, 50))
