"""Synthetic faces in the layout of the IMM Face Database (Nordstrom et al. 2004), for those who do not have it."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from foldmark.core.files import write_text
from foldmark.core.markup import IMM58
from foldmark.core.progress import Progress, no_progress
from foldmark.data.imm import IMM_FOLDER, SYNTHETIC_NOTE, VIEWS
from foldmark.synthetic.build import build_once, run_jobs, write_jpeg
from foldmark.synthetic.canvas import smooth_noise
from foldmark.synthetic.face import draw_person, sample_colours
from foldmark.synthetic.head import Expression, Head, front_z, sample_head
from foldmark.synthetic.paint import brush, ellipse
from foldmark.synthetic.scene import develop
from foldmark.synthetic.view import View, landmarks_px, light_from, rotation_matrix

SIZE = (640, 480)
NOTE = "Synthetic faces made by Foldmark, which show nobody, in the layout and markup of the IMM Face Database.\n"
FEMALE_SHARE = 7 / 40
STUDIO_HAIR = {
    "m": {"cropped": 0.2, "receding": 0.2, "short": 0.4, "fringe": 0.05, "curly": 0.05, "bald": 0.1},
    "f": {"short": 0.1, "tied": 0.35, "curly": 0.1, "long": 0.3, "long fringe": 0.15},
}
NEUTRAL, SMILE, OWN_RIGHT, OWN_LEFT, SPOT, FREE = VIEWS

ASF = """\
######################################################################
#
#    AAM Shape File  -  synthetic, by Foldmark
#
######################################################################

#
# number of model points
#
{count}

#
# model points
#
# format: <path#> <type> <x rel.> <y rel.> <point#> <connects from> <connects to>
#
{points}
#
# host image
#
{picture}
"""


def write_synthetic_imm(
    folder: Path, *, people: int = 40, seed: int = 0, workers: int | None = None, progress: Progress = no_progress
) -> Path:
    """Draw `people` persons in the six views of the IMM Face Database into `folder`, in its layout, and return the folder
    of its files.

    Views are 1 neutral, 2 happy, 3 and 4 turned by about 30 degrees to the person's right and left, 5 lit by a spot from the
    person's left, 6 free. The note `SYNTHETIC.txt` marks the set as synthetic. The same seed gives the same bytes whatever
    the number of worker processes (default: one per core). A set that is there already is left as it is, and an interrupted
    call leaves nothing that looks complete. Raises UserError where something else stands in its place.
    """

    def fill(build: Path) -> None:
        jobs = [(build, seed, person, view) for person in range(1, people + 1) for view in VIEWS]
        run_jobs(_write_view, jobs, workers, progress)
        write_text(build / SYNTHETIC_NOTE, NOTE)

    return build_once(Path(folder) / IMM_FOLDER, (SYNTHETIC_NOTE,), fill)


def sample_imm_geometry(view: int, identity: np.random.Generator, moment: np.random.Generator) -> tuple[Head, View]:
    """Head and camera of a person in a view; `identity` in the same state gives the same person in any view."""
    px_per_mm = 1.33 * math.exp(identity.normal(0, 0.05) + moment.normal(0, 0.015))
    middle = np.array([325, 313]) + identity.normal(0, [12, 12]) + moment.normal(0, [14, 7])
    head = sample_head(identity, _expression(view, moment))
    yaw, pitch, roll = moment.normal([0, -4, 0], [2.5, 3, 2])
    if view in (OWN_RIGHT, OWN_LEFT):
        yaw += moment.normal(28, 4) * (1 if view == OWN_LEFT else -1)
    if view == FREE:
        yaw, pitch, roll = np.clip(moment.normal([0, -4, 0], [12, 7, 7]), -30, 30)
    angles = np.radians([yaw, pitch, roll])
    camera = View(
        rotation=rotation_matrix(*angles),
        body_rotation=rotation_matrix(*(angles * [0.2, 0.1, 0.1])),
        pivot=np.array([0, 45.0, -30.0]),
        px_per_mm=px_per_mm,
        centre_px=middle,
        distance=1300.0,
    )
    # A jaw that drops must not leave the picture.
    chin = camera.project(np.array([0, head.chin_y, front_z(head, 0.0, head.chin_y)]))
    return head, replace(camera, centre_px=middle - [0, max(chin[1] - (SIZE[1] - 12), 0)])


def draw_imm_face(seed: int, person: int, view: int) -> tuple[str, np.ndarray, np.ndarray]:
    """The person's letter (m or f), the picture uint8 (480, 640, 3) RGB and its landmarks (58, 2) in pixels."""
    # The same for each view, so that the person stays the same.
    identity, moment = np.random.default_rng([seed, person, 0]), np.random.default_rng([seed, person, view])
    sex = "f" if identity.random() < FEMALE_SHARE else "m"
    head, camera = sample_imm_geometry(view, identity, moment)
    lamp = (moment.normal(52, 5), 28.0, 0.78) if view == SPOT else (moment.normal(0, 10), moment.normal(35, 5), 0.5)
    picture = draw_person(
        head,
        camera,
        light_from(*lamp, identity),
        sample_colours(identity),
        draw_studio(camera.centre_px, view == SPOT, identity, moment),
        identity,
        hair_odds=STUDIO_HAIR[sex],
        beard_odds=0.35 if sex == "m" else 0,
    )
    picture = cv2.GaussianBlur(picture, (0, 0), 0.6)
    return sex, develop(picture, 0.012, moment), landmarks_px(head, camera, IMM58)


def draw_studio(head_px: np.ndarray, spot: bool, identity: np.random.Generator, moment: np.random.Generator) -> np.ndarray:
    """A plain dark green to grey wall, float32 (480, 640, 3); a spot brightens its right and throws the head's shadow."""
    width, height = SIZE
    tone = np.array([0.10, 0.27, 0.25]) * identity.uniform(0.75, 1.25) * identity.normal(1, 0.08, 3)
    tone = tone + identity.uniform(0, 0.4) * (tone.mean() - tone)
    across, down = np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    level = 1 - 0.12 * down + moment.normal(0, 0.06) * across + 0.03 * smooth_noise(moment, (height, width), (6, 9))
    if spot:
        level, tone = level * (1.5 + 0.7 * across), tone * [1.4, 1, 0.85]
    wall = cv2.merge([level * float(channel) for channel in tone])
    if spot:
        shadow = head_px + [-150, 20]
        brush(wall, ellipse(shadow, (95, 150)), tone * 0.8, 0.7, 12)
    return wall


def _expression(view: int, rng: np.random.Generator) -> Expression:
    smile, parted, lift, frown = rng.normal([0, -2, 0, 0], [0.1, 2, 1, 0.1])
    if view == SMILE:
        smile, parted = rng.normal([1.05, 3.5], [0.15, 3])
    if view == FREE:
        smile, parted, lift, frown = rng.normal([0.4, 2, 2, 0], [0.6, 10, 3, 0.4])
    return Expression(float(smile), float(np.clip(parted, 0, 30)), float(lift), float(np.clip(frown, 0, 1)))


def _write_view(job: tuple[Path, int, int, int]) -> None:
    build, seed, person, view = job
    sex, picture, points_px = draw_imm_face(seed, person, view)
    name = f"{person:02d}-{view}{sex}"
    write_jpeg(build / f"{name}.jpg", picture, 88)
    text = ASF.format(count=IMM58.count, points=_asf_points(points_px), picture=f"{name}.jpg")
    (build / f"{name}.asf").write_bytes(text.encode())


def _asf_points(points_px: np.ndarray) -> str:
    rows = []
    for path, line in enumerate(IMM58.lines):
        closed = line[0] == line[-1]
        run = line[:-1] if closed else line
        for place, point in enumerate(run):
            before = run[place - 1] if closed or place else point
            after = run[(place + 1) % len(run)] if closed or place + 1 < len(run) else point
            x, y = points_px[point] / SIZE
            rows.append(f"{path} \t{0 if closed else 4} \t{x:.8f} \t{y:.8f} \t{point} \t{before} \t{after}\n")
    return "".join(rows)
