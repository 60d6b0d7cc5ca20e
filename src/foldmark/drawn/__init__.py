"""Drawn faces with exact landmarks, to try the kit without any data set.

Each face is a parametric head (`head`) under a sampled pose, light and camera (`view`), painted (`skin`) and drawn as a
cloud of surface samples dense enough to leave no gaps (`canvas`, `scene`, `face`). `write_drawn_faces` lays them out like
the published iBUG archive, so every later step reads them as it reads real data.
"""

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from foldmark.drawn.face import draw_face
from foldmark.errors import UserError
from foldmark.faces import IBUG_FOLDER, TEST_XML, TRAIN_XML
from foldmark.files import write_text
from foldmark.markup import IBUG68

XML_HEAD = """<?xml version='1.0' encoding='ISO-8859-1'?>
<dataset>
<name>Drawn faces - {title}</name>
<comment>Synthetic faces with exact landmarks in the layout of the iBUG face point dataset.</comment>
<images>
"""


def detector_box(points_px: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box (left, top, width, height) like those of dlib's frontal detector on 300-W: square, from the brows to the
    lower lip.

    It cuts the chin in about four of five faces; enlarged 1.17 times about its centre it holds all points of the
    median face.
    """
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    side = 0.945 * np.max(high - low) * np.exp(rng.normal(0, 0.075))
    # Sideways the detector follows the eyes and nose of a turned face more than its outline.
    middle = (low + high) / 2 * [0.5, 1] + points_px[17:60].mean(axis=0) * [0.5, 0] + rng.normal([0, -0.02], 0.028) * side
    left, top = np.rint(middle - side / 2).astype(int)
    width = int(round(side))
    return int(left), int(top), width, width + int(rng.integers(0, 2))


def write_drawn_faces(folder: Path, *, train_faces: int, test_faces: int, seed: int = 0, workers: int | None = None) -> Path:
    """Draw a data set into `folder` in the layout of the published iBUG archive and return the folder that holds its
    label files.

    Every face is written with its mirror twin; the test list has boxes only. The same seed gives the same bytes
    whatever the number of worker processes (default: one per core). A data set that is there already is left as it
    is. Everything is built in a folder beside it and renamed at the end, so an interrupted call leaves nothing that
    looks complete. Raises UserError where something else stands in its place.
    """
    dataset = Path(folder) / IBUG_FOLDER
    if _complete(dataset):
        return dataset
    if dataset.exists():
        raise UserError(f"{dataset}: is there but lacks its label files; move it away and run the same command again.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".drawn-", dir=folder) as scratch:
        build = Path(scratch) / IBUG_FOLDER
        jobs = [(build, "train", seed, index) for index in range(train_faces)] + [
            (build, "test", seed, index) for index in range(test_faces)
        ]
        for split in ("train", "test"):
            (build / "drawn" / f"{split}set").mkdir(parents=True)
        entries = _run(jobs, workers or os.cpu_count() or 1)
        for split, name, title in (("train", TRAIN_XML, "training images"), ("test", TEST_XML, "testing images")):
            images = "".join(xml for (_, of, _, _), xml in zip(jobs, entries, strict=True) if of == split)
            write_text(build / name, XML_HEAD.format(title=title) + images + "</images>\n</dataset>\n")
        try:
            build.rename(dataset)
        except OSError:
            # Another process drew the same set meanwhile: its result is as good.
            if not _complete(dataset):
                raise
    return dataset


def _complete(dataset: Path) -> bool:
    return (dataset / TRAIN_XML).is_file() and (dataset / TEST_XML).is_file()


def _run(jobs: list, workers: int) -> list[str]:
    if workers == 1 or len(jobs) < 2:
        return [_write_face(job) for job in jobs]
    # "spawn": a forked child of a process that has started threads or CUDA may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(pool.map(_write_face, jobs, chunksize=4))


def _write_face(job: tuple[Path, str, int, int]) -> str:
    """Write the picture of one face and its mirror twin; return their XML."""
    build, split, seed, index = job
    # The index alone would give train and test the same faces.
    rng = np.random.default_rng([seed, int(split == "test"), index])
    picture, points_px = draw_face(rng)
    points_px = np.round(points_px, 2)
    left, top, width, height = detector_box(points_px, rng)
    quality = int(rng.integers(62, 96))
    picture_height, picture_width = picture.shape[:2]
    twin_points = points_px[IBUG68.mirror] * [-1, 1] + [picture_width - 1, 0]
    xml = ""
    for suffix, pixels, points, box_left in (
        ("", picture, points_px, left),
        ("_mirror", picture[:, ::-1], twin_points, picture_width - left - width),
    ):
        name = f"drawn/{split}set/{index:05d}{suffix}.jpg"
        encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        (build / name).write_bytes(encoded.tobytes())
        size = f" width='{picture_width}' height='{picture_height}'" if split == "train" else ""
        parts = (
            [f"      <part name='{k:02d}' x='{x:.2f}' y='{y:.2f}'/>\n" for k, (x, y) in enumerate(points)]
            if split == "train"
            else []
        )
        box = f"    <box top='{top}' left='{box_left}' width='{width}' height='{height}'>\n{''.join(parts)}    </box>\n"
        xml += f"  <image file='{name}'{size}>\n{box}  </image>\n"
    return xml
