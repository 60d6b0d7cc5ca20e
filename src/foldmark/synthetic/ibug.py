"""Synthetic faces in the layout of the published iBUG face point archive."""

from pathlib import Path

import numpy as np

from foldmark.core.files import write_text
from foldmark.core.markup import IBUG68
from foldmark.core.progress import Progress, no_progress
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML
from foldmark.synthetic.build import build_once, run_jobs, write_jpeg
from foldmark.synthetic.face import draw_face

XML_HEAD = """<?xml version='1.0' encoding='ISO-8859-1'?>
<dataset>
<name>Synthetic faces - {title}</name>
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


def write_synthetic_faces(
    folder: Path,
    *,
    train_faces: int,
    test_faces: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Draw a data set into `folder` in the layout of the published iBUG archive and return the folder that holds its
    label files.

    Every face is written with its mirror twin; the test list has boxes only. The same seed gives the same bytes
    whatever the number of worker processes (default: one per core). A data set that is there already is left as it
    is, and an interrupted call leaves nothing that looks complete. Raises UserError where something else stands in its
    place.
    """
    counts = {"train": train_faces, "test": test_faces}

    def fill(build: Path) -> None:
        for split in counts:
            (build / "synthetic" / f"{split}set").mkdir(parents=True)
        jobs = [(build, split, seed, index) for split, count in counts.items() for index in range(count)]
        entries = run_jobs(_write_face, jobs, workers, progress)
        for split, name, title in (("train", TRAIN_XML, "training images"), ("test", TEST_XML, "testing images")):
            images = "".join(xml for (_, of, _, _), xml in zip(jobs, entries, strict=True) if of == split)
            write_text(build / name, XML_HEAD.format(title=title) + images + "</images>\n</dataset>\n")

    return build_once(Path(folder) / IBUG_FOLDER, (TRAIN_XML, TEST_XML), fill)


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
        name = f"synthetic/{split}set/{index:05d}{suffix}.jpg"
        write_jpeg(build / name, pixels, quality)
        size = f" width='{picture_width}' height='{picture_height}'" if split == "train" else ""
        parts = (
            [f"      <part name='{k:02d}' x='{x:.2f}' y='{y:.2f}'/>\n" for k, (x, y) in enumerate(points)]
            if split == "train"
            else []
        )
        box = f"    <box top='{top}' left='{box_left}' width='{width}' height='{height}'>\n{''.join(parts)}    </box>\n"
        xml += f"  <image file='{name}'{size}>\n{box}  </image>\n"
    return xml
