"""The user's own photos and the Python API: the competition file's numbers on any picture, upright, with nothing lost and
nothing of the user's touched."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import foldmark as foldmark_api
from foldmark.commands.photos import picture_name
from foldmark.core.errors import UserError
from foldmark.core.faces import Faces
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.data.photos import parse_boxes
from foldmark.data.twins import box_overlap
from foldmark.ensemble.blend import blend_oof
from foldmark.ensemble.calibration import box_sides
from foldmark.ensemble.ensemble import Member, Predicting, predict_ensemble
from foldmark.runs.run_folder import RunFolder
from tests.change_run import change_oof
from tests.conftest import REPOSITORY, assert_refused


@pytest.fixture(scope="module")
def trained(finished) -> Path:
    """The folder of a run that `foldmark train` made, far from its data set."""
    return finished / "runs/a"


@pytest.fixture(scope="module")
def predictor(trained):
    return foldmark_api.load(trained, device="cpu")


@pytest.fixture(scope="module")
def test_list(synthetic_root) -> Faces:
    return read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)


@pytest.fixture
def at_work(trained, workplace) -> Path:
    """A workplace that has the run, and a folder `photos-of-mine` for photos."""
    shutil.copytree(trained, workplace / "runs/mine")
    (workplace / "photos-of-mine").mkdir()
    return workplace


def photo(test_list: Faces, row: int = 0) -> Image.Image:
    return Image.open(test_list.path(row)).convert("RGB")


def box_text(test_list: Faces, row: int = 0) -> str:
    return ",".join(f"{edge:g}" for edge in test_list.boxes_px[row])


def with_box(folder: Path, name: str, picture: Image.Image, box: str, **saving) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    picture.save(folder / name, **saving)
    (folder / f"{name}.box").write_text(box)


def content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def points_of(out: Path) -> dict[tuple[str, int], np.ndarray]:
    """(68, 3) x, y, std_px of each photo and face in points.csv."""
    faces: dict[tuple[str, int], list] = {}
    with (out / "points.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            faces.setdefault((row["photo"], int(row["face"])), []).append([float(row[key]) for key in ("x", "y", "std_px")])
    return {face: np.array(rows) for face, rows in faces.items()}


def test_importing_foldmark_stays_cheap():
    code = "import sys, foldmark; sys.exit(bool({'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_predict_gives_what_the_competition_file_would_hold(predictor, trained, test_list, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path(shutil.copytree(trained, tmp_path / "run")))
    members = [Member(run.read_config(["predict.twins=false"]), run.finished)]
    expected = predict_ensemble(members, test_list, Predicting(torch.device("cpu"), tmp_path / "cache"))
    for row in range(len(test_list)):
        points, std = predictor.predict(test_list.path(row), [test_list.boxes_px[row]])
        assert points.shape == (1, 68, 2)
        # Crops are uint8: a last bit in a matrix can turn one of their pixels by one.
        assert np.abs(points[0] - expected.points_px[row]).max() < 0.05
        sides_px = box_sides(test_list.take([row]))
        assert std == pytest.approx(predictor.calibration.std_px(expected.take([row]), sides_px), rel=0.05)
    assert (std > 0).all()


def test_arrays_pillow_images_and_files_give_the_same(predictor, test_list, tmp_path):
    picture, boxes = photo(test_list), test_list.boxes_px[:1]
    picture.save(tmp_path / "same.png")
    expected = predictor.predict(tmp_path / "same.png", boxes)
    for image in (str(tmp_path / "same.png"), picture, np.asarray(picture), np.asarray(picture.convert("L"))):
        for given_now, wanted in zip(predictor.predict(image, boxes), expected, strict=True):
            assert np.array_equal(given_now, wanted)


@settings(max_examples=12)
@given(
    orientation=st.integers(1, 8),
    shift=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    ending=st.sampled_from(["png", "tiff", "webp"]),
)
def test_however_a_camera_was_held_the_points_are_those_of_the_upright_photo(
    predictor, test_list, tmp_path_factory, orientation, shift, ending
):
    upright, box = photo(test_list), test_list.boxes_px[0] + [*shift, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    # The transposition that the orientation undoes: for those of a quarter turn it is the other one.
    turned = upright
    for method in Image.Transpose:
        candidate = upright.transpose(method)
        candidate.getexif()[0x0112] = orientation
        if np.array_equal(np.asarray(ImageOps.exif_transpose(candidate)), np.asarray(upright)):
            turned = upright.transpose(method)
    path = tmp_path_factory.mktemp("held") / f"photo.{ending}"
    turned.save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    points, std = predictor.predict(path, [box])
    expected_points, expected_std = predictor.predict(np.asarray(upright), [box])
    assert np.array_equal(points, expected_points)
    assert np.array_equal(std, expected_std)


def test_many_faces_at_once_are_each_as_alone_and_none_are_none(predictor, test_list):
    picture = np.asarray(photo(test_list))
    boxes = test_list.boxes_px[0] + np.array([[0, 0, 0, 0], [5, -3, 10, 10], [-200, -200, 0, 0]])
    points, std = predictor.predict(picture, boxes)
    for box, face, spread in zip(boxes, points, std, strict=True):
        alone, alone_std = predictor.predict(picture, box[None])
        assert np.abs(alone[0] - face).max() < 0.05
        assert alone_std[0] == pytest.approx(spread, rel=0.05)
    assert [part.shape for part in predictor.predict(picture, [])] == [(0, 68, 2), (0, 68)]


@pytest.mark.parametrize(
    ("image", "boxes"),
    [
        (np.zeros((40, 40), np.float32), [[0, 0, 20, 20]]),
        (np.zeros((40, 40, 4), np.uint8), [[0, 0, 20, 20]]),
        (np.zeros((40, 40), np.uint8), [0, 0, 20, 20]),
        (np.zeros((40, 40), np.uint8), [[0, 0, 20, 0]]),
        (np.zeros((40, 40), np.uint8), [[0, np.nan, 20, 20]]),
        (np.zeros((40, 40), np.uint8), [[500, 500, 20, 20]]),
    ],
)
def test_an_image_or_box_that_cannot_be_used_is_refused(predictor, image, boxes):
    with pytest.raises(ValueError, match="."):
        predictor.predict(image, boxes)


def test_a_blend_weighs_as_the_competition_file_does(trained, synthetic_root, tmp_path, test_list):
    runs = [shutil.copytree(trained, tmp_path / "runs" / name) for name in ("one", "two")]
    rng = np.random.default_rng(0)
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    for run, scatter in zip(runs, (6, 12), strict=True):
        change_oof(run, faces, lambda points_px, scatter=scatter: points_px + rng.normal(0, scatter, points_px.shape))
    with pytest.raises(UserError, match="make csv"):
        foldmark_api.load(runs)
    blended = foldmark_api.load(runs, data_root=synthetic_root)
    folders = [RunFolder(run) for run in runs]
    weights = blend_oof(folders, [folder.read_config() for folder in folders], faces)[1].weights
    assert weights[0] > weights[1] > 0.1
    assert [member.weight for member in blended.members] == pytest.approx(weights.tolist())
    # Reading writes nothing, so the next time needs the data set again.
    assert sorted(path.name for path in runs[0].parent.iterdir()) == ["one", "two"]
    with pytest.raises(UserError, match="make csv"):
        foldmark_api.load(runs)
    # The two models are the same, so their blend is either.
    alone = foldmark_api.load(runs[0], data_root=synthetic_root)
    boxes = test_list.boxes_px[:1]
    assert np.abs(blended.predict(test_list.path(0), boxes)[0] - alone.predict(test_list.path(0), boxes)[0]).max() < 1e-6


def test_a_calibration_of_other_folds_or_a_damaged_one_is_refused(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    foldmark_api.load(run)
    shutil.rmtree(run / "fold1")
    with pytest.raises(UserError, match="make csv"):
        foldmark_api.load(run)
    RunFolder(run).ensemble_file.write_text('{"members": [')
    with pytest.raises(UserError, match="damaged"):
        foldmark_api.load(run)
    with pytest.raises(UserError, match="no such run"):
        foldmark_api.load(tmp_path / "another")


def test_all_kinds_of_photos_are_predicted_and_bad_ones_named(foldmark, at_work, test_list):
    folder, box, picture = at_work / "photos-of-mine", box_text(test_list), photo(test_list)
    with_box(folder, "same.png", picture, box)
    with_box(folder, "same.jpg", picture, box, quality=95)
    with_box(folder, "trip/same.png", picture, f"[[{box}], [{box}]]")
    with_box(folder, "alpha.png", Image.merge("RGBA", [*picture.split(), Image.new("L", picture.size, 255)]), box)
    with_box(folder, "cmyk.jpg", picture.convert("CMYK"), box, quality=95)
    with_box(folder, "grey [1].png", picture.convert("L"), box)
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    with_box(folder, "sixteen.png", Image.fromarray(deep), box)
    with_box(folder, "far.png", picture, "9000,9000,50,50")
    with_box(folder, "a" * 240 + ".png", picture, box)
    (folder / "notes.txt").write_text("milk")
    (folder / "half.jpg").write_bytes((folder / "same.jpg").read_bytes()[:2000])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt.box").write_text(box)
    (folder / "half.jpg.box").write_text(box)
    (folder / "empty.jpg.box").write_text(box)
    before = content(folder)
    done = foldmark("photos", folder, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert content(folder) == before
    assert "SYNTHETIC FACES" in done.stdout
    assert "Next: make report NAME=mine (shows them on its page)" in done.stdout
    for bad in ("notes.txt", "half.jpg", "empty.jpg", "far.png"):
        assert f"skipped: {bad} " in done.stdout
    out = at_work / "photos/mine"
    found = points_of(out)
    plain = found["same.png", 1]
    for name in ("same.jpg", "alpha.png", "cmyk.jpg", "grey [1].png", "sixteen.png", "trip/same.png"):
        assert np.abs(found[name, 1] - plain).max() < 2, name
    assert np.array_equal(found["trip/same.png", 1], found["trip/same.png", 2])
    tree = json.loads((out / "points.json").read_text())
    assert tree["learnt_from_synthetic_faces"]
    assert {entry["photo"] for entry in tree["skipped"]} == {"notes.txt", "half.jpg", "empty.jpg", "far.png"}
    pictures = {entry["picture"] for entry in tree["photos"]}
    assert len(pictures) == len(tree["photos"]) == 8
    for name in [*pictures, "sheet.png"]:
        with Image.open(out / name) as drawn:
            assert min(drawn.size) > 100
    face = next(entry for entry in tree["photos"] if entry["photo"] == "same.png")["faces"][0]
    assert np.allclose(np.column_stack([face["points"], face["std_px"]]), plain)
    assert not list(out.rglob("*.partial"))


def test_a_label_file_needs_no_detector_and_gives_what_the_api_gives(foldmark, at_work, test_list, synthetic_root, predictor):
    done = foldmark("predict", synthetic_root / IBUG_FOLDER / TEST_XML, "--run", "runs/mine", "--out", "one")
    assert done.returncode == 0, done.stderr
    assert set(content(at_work / "one")) == {"points.csv", "points.json"}
    found = points_of(at_work / "one")
    assert len(found) == len(test_list)
    names = {Path(name).name: face for (name, _), face in found.items()}
    for row in range(len(test_list)):
        points, _ = predictor.predict(test_list.path(row), test_list.boxes_px[[row]])
        assert np.abs(names[test_list.path(row).name][:, :2] - points[0]).max() < 0.05


def test_a_face_unlike_those_that_the_models_learned_is_named(foldmark, at_work, test_list):
    """Here every face is: the models were surer of all that they were trained for."""
    file = RunFolder(at_work / "runs/mine").ensemble_file
    fit = json.loads(file.read_text())
    fit["calibration"]["limits"] = [-100.0, -100.0]
    file.write_text(json.dumps(fit))
    with_box(at_work / "photos-of-mine", "strange.png", photo(test_list), box_text(test_list))
    done = foldmark("photos", "photos-of-mine", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "strange.png: unlike the faces that the models learned (face 1)" in done.stdout + done.stderr
    (entry,) = json.loads((at_work / "photos/mine/points.json").read_text())["photos"]
    assert entry["faces"][0]["unlike_training"] is True


def test_a_list_and_single_photos_with_a_box(foldmark, at_work, test_list):
    folder = at_work / "photos-of-mine"
    with_box(folder, "one.png", photo(test_list), box_text(test_list))
    (folder / "mine.txt").write_text("one.png\n\n")
    assert foldmark("predict", folder / "mine.txt", "--run", "mine").returncode == 0
    listed = points_of(at_work / "photos/mine")
    for elsewhere in (["--run", "mine"], ["--name", "mine", "--out", "one"]):
        done = foldmark("predict", folder / "mine.txt", "--draw", *elsewhere)
        assert done.returncode == 0, done.stderr
        assert "Next:" not in done.stdout  # the report does not show them
    (folder / "one.png.box").unlink()
    done = foldmark("predict", folder / "one.png", "--run", "mine", "--box", box_text(test_list))
    assert done.returncode == 0, done.stderr
    assert all(np.array_equal(points_of(at_work / "photos/mine")[key], face) for key, face in listed.items())


def test_what_cannot_be_done_is_one_sentence(foldmark, at_work, test_list):
    folder = at_work / "photos-of-mine"
    assert_refused(foldmark("photos", folder, "--name", "mine"), "photos-of-mine", "no photo in it")
    assert_refused(foldmark("photos", "", "--name", "mine"), "PHOTOS")
    assert_refused(foldmark("photos", "nowhere", "--name", "mine"), "nowhere", "no such file")
    with_box(folder, "one.png", photo(test_list), "1,2,3")
    assert_refused(foldmark("photos", folder, "--name", "mine"), "one.png.box", "x,y,w,h")
    with_box(folder, "one.png", photo(test_list), "9000,9000,5,5")
    assert_refused(foldmark("photos", folder, "--name", "mine"), "no face found in any of 1 photos")
    (folder / "notes.txt").write_text("milk")
    (folder / "one.png.box").write_text(box_text(test_list))
    assert_refused(foldmark("photos", folder, "--name", "mine", "--box", "1,2,3,4"), "BOX", "2")
    assert_refused(foldmark("photos", ".", "--name", "mine"), "within the photos")
    assert_refused(foldmark("photos", folder, "--name", "other"), "other", "make train")
    assert_refused(foldmark("photos", folder), "make train")
    assert not (at_work / "photos").exists()


def test_without_dlib_it_says_how_to_get_it(foldmark_process, at_work, test_list, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without/dlib.py").write_text("raise ImportError('not here')")
    photo(test_list).save(at_work / "photos-of-mine/one.png")
    done = foldmark_process(
        "photos", "photos-of-mine", "--name", "mine", PYTHONPATH=f"{tmp_path / 'without'}:{REPOSITORY / 'src'}"
    )
    assert_refused(done, "dlib", "make photos")


@given(st.lists(st.tuples(*[st.integers(-500, 500)] * 2, *[st.integers(1, 500)] * 2), min_size=1, max_size=5))
def test_boxes_read_the_same_as_lines_and_as_json(boxes):
    lines = "\n".join(",".join(map(str, box)) for box in boxes)
    assert np.array_equal(parse_boxes(lines, "x.box"), boxes)
    assert np.array_equal(parse_boxes(lines.replace(",", " ") + "\r\n", "x.box"), boxes)
    assert np.array_equal(parse_boxes(json.dumps(boxes), "x.box"), boxes)


@given(st.text(max_size=40))
def test_any_other_text_is_refused_or_holds_boxes(text):
    try:
        boxes = parse_boxes(text, "x.box")
    except UserError:
        return
    assert boxes.shape[1] == 4
    assert (boxes[:, 2:] > 0).all()


@given(st.lists(st.lists(st.text("ab.", min_size=1, max_size=300), min_size=1, max_size=3).map("/".join), unique=True))
def test_photos_with_names_of_their_own_get_pictures_of_their_own(names):
    pictures = [picture_name(name) for name in [*names, "sheet"]]
    assert len({*pictures, "sheet.png"}) == len(names) + 2
    assert all(len(part) <= 220 for picture in pictures for part in picture.rpartition("/")[2:])


# What follows needs the detector.


@pytest.fixture
def find_faces():
    pytest.importorskip("dlib", reason="dlib is not installed; `make .venv/photos-installed` does it")
    from foldmark.data.photos import find_faces

    return find_faces


def test_detected_boxes_are_those_of_the_real_data_set(find_faces, real_faces):
    rows = np.linspace(0, len(real_faces) - 1, 24).astype(int)
    overlaps = []
    for row in rows:
        boxes_px = find_faces(np.asarray(Image.open(real_faces.path(row)).convert("L")))
        overlaps.append(box_overlap(real_faces.boxes_px[row], boxes_px).max(initial=0))
    assert np.mean(np.array(overlaps) > 0.5) >= 0.8
    assert np.median(overlaps) > 0.7


def test_faces_are_found_in_large_and_tiny_pictures_and_several_in_one(find_faces, test_list):
    faces = [row for row in range(len(test_list)) if len(find_faces(np.asarray(photo(test_list, row).convert("L")))) == 1]
    assert faces, "the detector finds none of the synthetic faces"
    picture = photo(test_list, faces[0]).convert("L")
    expected = find_faces(np.asarray(picture))[0]
    tiny = find_faces(np.asarray(picture.resize((picture.width // 3, picture.height // 3), Image.Resampling.LANCZOS)))
    assert box_overlap(expected, 3 * tiny).max() > 0.5
    scene = Image.new("L", (9000, 6000), 128)
    large = picture.resize((picture.width * 5, picture.height * 5), Image.Resampling.LANCZOS)
    for left in (500, 5500):
        scene.paste(large, (left, 2000))
    found = find_faces(np.asarray(scene))
    assert len(found) == 2
    for left, box in zip((500, 5500), found, strict=True):
        assert box_overlap(5 * expected + [left, 2000, 0, 0], box[None])[0] > 0.5


def test_photos_without_boxes_are_predicted_and_those_without_a_face_named(foldmark, at_work, test_list, find_faces):
    folder = at_work / "photos-of-mine"
    rows = [row for row in range(len(test_list)) if len(find_faces(np.asarray(photo(test_list, row).convert("L")))) == 1]
    picture = photo(test_list, rows[0])
    picture.save(folder / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    Image.new("RGB", (300, 200), "green").save(folder / "meadow.png")
    done = foldmark("photos", folder, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "no face found in meadow.png" in done.stdout
    found = points_of(at_work / "photos/mine")
    assert set(found) == {("upright.png", 1), ("turned.png", 1)}
    assert np.abs(found["turned.png", 1] - found["upright.png", 1]).max() < 0.05
    turned = next(
        entry for entry in json.loads((at_work / "photos/mine/points.json").read_text())["photos"] if "turn" in entry["photo"]
    )
    assert (turned["width"], turned["height"], turned["frame"]) == (*picture.size, "upright")
    assert turned["boxes_from"] == "detector"


def test_the_lock_of_the_photos_extra_pins_with_hashes_and_names_no_host():
    lock = (REPOSITORY / "requirements-photos.lock").read_text()
    assert lock.startswith("dlib-bin==")
    assert "--hash=sha256:" in lock
    assert "://" not in lock
