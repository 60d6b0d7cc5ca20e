"""The demo page: its algebra is Python's, and it finds in a browser the points that Python finds, on photos and with a camera."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from foldmark.core import geometry
from foldmark.core.config import CropConfig
from foldmark.data.crops import cut, find_other_crop, store_size, store_window, warp
from foldmark.data.decode import to_grey
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, read_ibug
from foldmark.export import web_runtime
from foldmark.export.predictor import OnnxPredictor, load_onnx
from tests.browser import CHROMIUM, OpenPage, open_browser
from tests.conftest import REPOSITORY, assert_refused
from tests.export.conftest import copy_runtime, export_aligned
from tests.firefox import FIREFOX, open_firefox

SCRIPT = REPOSITORY / "src/foldmark/show/templates/landmarks.js"
CASES = 1000


def run_script(code: str, given: object, folder: Path) -> list:
    """What JavaScript makes of `given`, in node or in Chromium."""
    node = shutil.which("node")
    text = f"{SCRIPT.read_text()}\nconst found = (({code})({json.dumps(given)}));"
    if node:
        (folder / "script.js").write_text(f"{text}\nprocess.stdout.write(JSON.stringify(found));")
        done = subprocess.run([node, folder / "script.js"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    if not CHROMIUM:
        pytest.skip("neither node nor Chromium is here to run the page's JavaScript")
    (folder / "script.html").write_text(f"<!doctype html><script>{text}</script>")
    with open_browser(folder / "profile") as page:
        page.open((folder / "script.html").as_uri())
        return page.run("found")


def crop_of(rng: np.random.Generator) -> dict:
    size = int(rng.integers(16, 128)) * 2
    crop = CropConfig(
        size=(size, size), enlargement=rng.uniform(0.8, 2), down=rng.uniform(-0.2, 0.2), margin=float(rng.uniform(1, 2))
    )
    return crop.model_dump(mode="json")


def test_the_algebra_is_that_of_python(tmp_path):
    rng = np.random.default_rng(0)
    cases = []
    for number in range(CASES):
        box = rng.uniform(-50, 500, 4)
        box[2:] = np.abs(box[2:]) + 5
        # Halves are rounded to the even neighbour.
        box = np.round(2 * box) / 2 if number % 2 else box
        affines = rng.normal(size=(2, 6))
        affines[:, [0, 4]] += 3
        points, target = rng.uniform(0, 128, (2, 68, 2))
        cases.append(
            {
                "crop": crop_of(rng),
                "other_crop": crop_of(rng),
                "box": box.tolist(),
                "affines": affines.tolist(),
                "points": points.tolist(),
                "target": target.tolist(),
            }
        )
    code = """(cases) => cases.map(({ crop, other_crop, box, affines: [one, other], points, target }) => {
        const window = Landmarks.storeWindow(box, crop);
        return [window, Landmarks.windowToStore(window, crop), Landmarks.centreAffine(crop),
            Landmarks.otherCrop(crop, other_crop), Landmarks.compose(one, other),
            Landmarks.invert(one), Landmarks.align(points, target), Landmarks.apply(one, points).flat(),
            Landmarks.boxOf(points, { crop, mean_points_crop: target })];
    })"""
    for case, found in zip(cases, run_script(code, cases, tmp_path), strict=True):
        crop, box, points, target = (
            CropConfig.model_validate(case["crop"]),
            *(np.array(case[key]) for key in ("box", "points", "target")),
        )
        one, other = np.array(case["affines"]).reshape(2, 2, 3)
        side, (left, top, wide, high) = store_size(crop)[0], store_window(box, crop)
        assert found[0] == [left, top, wide]
        align = geometry.align(points, target)
        # The middle of the box that tracking finds lies where the middle of the aligned crop is, but for `down`.
        ((x, y),) = geometry.apply(geometry.invert(align), np.full((1, 2), (crop.size[0] - 1) / 2))
        longer = crop.size[0] / crop.enlargement / np.sqrt(np.linalg.det(align[:, :2]))
        expected = [
            geometry.resize(side / wide, side / high, left, top),
            geometry.centre_affine((side, side), crop.size),
            find_other_crop((side, side), crop, CropConfig(**case["other_crop"]))[0],
            geometry.compose(one, other),
            geometry.invert(one),
            align,
            geometry.apply(one, points),
            np.array([x + 0.5 - longer / 2, y + 0.5 - crop.down * longer - longer / 2, longer, longer]),
        ]
        for given, wanted in zip(found[1:], expected, strict=True):
            assert np.allclose(given, wanted.ravel(), rtol=1e-6, atol=1e-6)


def test_grey_cutting_and_warping_are_those_of_python(tmp_path):
    rng, cases = np.random.default_rng(1), []
    for _ in range(12):
        height, width = rng.integers(40, 90, 2)
        # Smooth, so that the last bit of a place changes a grey level by one at most.
        rgb = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 2)
        rgba = np.dstack([rgb, np.full((height, width), 255, np.uint8)])
        window = [int(value) for value in (*rng.integers(-30, 40, 2), rng.integers(20, 120))]
        affine = geometry.similarity((48, 48), (32, 32), scale=rng.uniform(0.7, 1.5), degrees=rng.uniform(-40, 40))
        cases.append(
            {
                "rgba": rgba.ravel().tolist(),
                "width": int(width),
                "height": int(height),
                "window": window,
                "affine": affine.ravel().tolist(),
            }
        )
    code = """(cases) => cases.map(({ rgba, width, height, window, affine }) => {
        const grey = Landmarks.toGrey(rgba, width, height), store = Landmarks.cut(grey, window, 48);
        return [grey, store, Landmarks.warp(store, affine, 32)].map(({ data }) => [...data]);
    })"""
    for case, found in zip(cases, run_script(code, cases, tmp_path), strict=True):
        rgba = np.array(case["rgba"], np.uint8).reshape(case["height"], case["width"], 4)
        grey = to_grey(Image.fromarray(rgba[..., :3]))
        assert np.array_equal(np.array(found[0]), grey.ravel())
        left, top, side = case["window"]
        store = cut(grey, (left, top, side, side), (48, 48))
        assert np.abs(np.array(found[1]) - store.ravel()).max() <= 2
        crop = warp(np.array(found[1], np.uint8).reshape(48, 48), np.array(case["affine"]).reshape(2, 3), (32, 32))
        assert np.abs(np.array(found[2]) - crop.ravel()).max() <= 2


@pytest.fixture(scope="module")
def made(aligned, synthetic_root, tmp_path_factory) -> Path:
    """A folder with the demo page of a quick run with an aligner."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(aligned, folder, dirs_exist_ok=True, symlinks=True)
    copy_runtime(folder)
    done = export_aligned(folder, synthetic_root, "demo")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_page_finds_pythons_points_on_a_photo_and_with_a_camera_without_an_error(made, synthetic_root, tmp_path):
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    photo, box = Image.open(faces.path(0)).convert("RGB"), faces.boxes_px[0]
    photo.save(tmp_path / "face.png")
    frame, moving = io.BytesIO(), b""
    for shift in range(20):
        seen = Image.new("RGB", (640, 480), "grey")
        seen.paste(photo.resize((400, 400)), (100 + 2 * shift, 40))
        frame.seek(0)
        frame.truncate()
        seen.save(frame, "JPEG", quality=95)
        moving += frame.getvalue()
    (tmp_path / "camera.mjpeg").write_bytes(moving)
    predictor = load_onnx(made / "exports/second-int8.onnx")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera += [f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}"]
    with open_browser(tmp_path / "profile", *camera) as page:
        page.open((made / "exports/second-demo.html").as_uri())
        assert_photo_is_pythons(page, predictor, tmp_path / "face.png", box)
        # A box drawn by hand, in pixels of the photo.
        place = page.run("(({ left, top, width }) => [left, top, width])(view.getBoundingClientRect())")
        left, top, scale = place[0], place[1], place[2] / photo.width
        page.drag((left + 30 * scale, top + 40 * scale), (left + 130 * scale, top + 160 * scale))
        page.wait("Math.abs(demo.state.box[0] - 30) < 2 && Math.abs(demo.state.box[3] - 120) < 2")
        page.run("document.getElementById('camera').click()")
        page.wait("demo.state.source === 'camera' && demo.state.frames > 5")
        assert_last_frame_is_pythons(page, predictor)
        assert not page.console


def assert_photo_is_pythons(page: OpenPage, predictor: OnnxPredictor, photo: Path, box: np.ndarray) -> None:
    """Choose a photo: the page finds the points that Python finds in that box."""
    page.run("demo.loading.then(() => true)")
    page.choose_file("#file", photo)
    page.wait("demo.state.face !== null")
    found = page.run(f"demo.predict({box.tolist()}).then(() => demo.state.face)")
    points, std = predictor.predict(photo, [box])
    assert np.abs(np.array(found["points"]) - points[0]).max() < 0.5
    assert np.abs(np.array(found["std"]) - std[0]).max() < 0.5


def assert_last_frame_is_pythons(page: OpenPage, predictor: OnnxPredictor) -> None:
    """Stop the camera: Python finds the same points in its last frame."""
    page.run("document.getElementById('camera').click()")
    last = page.run("((state) => ({ ...state, grey: { ...state.grey, data: [...state.grey.data] } }))(demo.state)")
    # The quick net takes nothing for a face, so each picture is looked at in the box, and not tracked.
    grey = np.array(last["grey"]["data"], np.uint8).reshape(480, 640)
    points, std = predictor.predict(grey, [last["box"]])
    assert np.abs(np.array(last["found"]["points"]) - points[0]).max() < 0.5
    assert np.abs(np.array(last["found"]["std"]) - std[0]).max() < 0.5
    assert page.run("document.getElementById('status').textContent") == "Camera stopped."


@pytest.mark.skipif(not FIREFOX, reason="Firefox is not installed")
def test_firefox_finds_pythons_points_from_disk_too_without_an_error(made, synthetic_root, tmp_path):
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TEST_XML, with_points=False)
    box = faces.boxes_px[0]
    Image.open(faces.path(0)).convert("RGB").save(tmp_path / "face.png")
    predictor = load_onnx(made / "exports/second-int8.onnx")
    with open_firefox(tmp_path / "profile") as page:
        page.open((made / "exports/second-demo.html").as_uri())
        assert_photo_is_pythons(page, predictor, tmp_path / "face.png", box)
        page.run("document.getElementById('camera').click()")
        page.wait("demo.state.source === 'camera' && demo.state.frames > 5")
        assert_last_frame_is_pythons(page, predictor)
        assert not page.list_errors()


def test_a_runtime_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch):
    path = tmp_path / f"{web_runtime.PACKAGE}-{web_runtime.VERSION}.tgz"
    path.write_bytes(b"another")
    with pytest.raises(web_runtime.UserError, match="is not onnxruntime-web"):
        web_runtime.fetch_runtime(tmp_path)
    path.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(web_runtime.UserError, match="npm, which fetches it, is not installed"):
        web_runtime.fetch_runtime(tmp_path)
    (tmp_path / "npm").write_text("#!/bin/sh\necho offline >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    with pytest.raises(web_runtime.UserError, match=r"npm could not fetch it \(offline\)"):
        web_runtime.fetch_runtime(tmp_path)
    assert not path.exists()


def test_a_run_without_square_crops_has_no_page(finished, workplace, foldmark, synthetic_root, quick):
    settings = f"{quick} crop.square=false crop.down=0"
    options = ["--data-root", synthetic_root, "--name", "wide", "--set", settings]
    assert foldmark("train", *options, "--folds", "0", "--device", "cpu").returncode == 0
    assert_refused(foldmark("demo", *options), "crop.square")
