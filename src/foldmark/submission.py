"""The competition file: written, read back, checked against the test list, and uploaded.

`Id,Predicted`, one row a value: faces in the order of the test list, points 0 to 67, x then y, in pixels of the
original picture.
"""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from foldmark.errors import UserError
from foldmark.faces import Faces
from foldmark.files import atomic_path
from foldmark.markup import IBUG68

HEADER = "Id,Predicted"
VALUES = 2 * IBUG68.count
DECIMALS = 4

# What a face may look like against its box, in units of the box's longer side. The truth of all 4,416 training faces
# lies within the bounds in brackets; the limits leave room for weak nets, not for wrong axes, frames or boxes.
FARTHEST_CENTRE = 0.5  # of the mean point from the box centre (0.002 to 0.265; on average 0.003 left, 0.054 below)
SPREAD = (0.12, 0.8)  # root mean square distance of the points from their mean (0.266 to 0.482)
FARTHEST_POINT = 1.5  # of any point from the box centre (the face's farthest: 0.445 to 0.897)
LEAST_UPRIGHT = 0.15  # chin below the brows' mean (0.575 to 1.196)
LEAST_EYES = -0.1  # right outer eye corner right of the left one (0.333 to 0.805)

UPLOAD_LIMIT = 600  # seconds
# Older versions of the Kaggle tool end with exit code 0 after these.
FAILURE = re.compile(r"could not|\b[45]\d\d (- |client error|server error)|forbidden|unauthorized", re.IGNORECASE)


def write_submission(path: Path, points_px: np.ndarray, faces: Faces) -> None:
    """Write predictions (n, 68, 2), in pixels of the original pictures, as the competition's file.

    They are checked first, and what was written is read back and checked again before it takes the place of `path`.
    Raises UserError for anything that is not a plausible prediction of these faces; `path` then is as it was.
    """
    if points_px.shape != (len(faces), IBUG68.count, 2):
        raise UserError(f"{path}: points of shape {points_px.shape} do not fit {len(faces)} faces of {IBUG68.count} points.")
    _check_points(points_px, faces, path)
    rows = (f"{index},{value:.{DECIMALS}f}" for index, value in enumerate(points_px.ravel().tolist()))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([HEADER, *rows]) + "\n", encoding="ascii")
        written_px = _read(temporary, len(faces))
        if not np.allclose(written_px, points_px, rtol=0, atol=10.0**-DECIMALS):
            raise UserError(f"{path}: what was written does not read back the same; check the disk and try again.")
        _check_points(written_px, faces, path)


def check_submission(path: Path, faces: Faces) -> None:
    """Raise UserError, naming the line or the face, with the first thing that is wrong in a competition file for these
    faces."""
    _check_points(_read(path, len(faces)), faces, path)


def upload_submission(path: Path, faces: Faces, *, competition: str | None, message: str, drawn: bool) -> bool:
    """Check the file again and hand it to the Kaggle command line; True if it was uploaded.

    Whatever is missing for that is printed, and nothing uploaded. Raises UserError when the upload itself fails.
    """
    check_submission(path, faces)
    lacking = "it holds predictions for drawn faces, not for the competition's." if drawn else _lacking(path, competition)
    if lacking:
        print(f"{path} is checked; nothing was uploaded: {lacking}")
        return False
    command = [_kaggle(), "competitions", "submit", "-c", competition, "-f", str(path), "-m", message]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=UPLOAD_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{path}: Kaggle did not answer within {UPLOAD_LIMIT // 60} minutes; "
            "see on the competition's page whether it arrived before trying again."
        ) from None
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be run ({error.strerror}); install it again.") from None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
    failures = [line for line in lines if FAILURE.search(line)]
    if done.returncode or failures:
        raise UserError(f"{path} was not uploaded to {competition}; Kaggle's tool says: {(failures or lines)[-1]}")
    print(f"{path} was uploaded to {competition}: {lines[-1]}")
    return True


def _read(path: Path, count: int) -> np.ndarray:
    """The points (count, 68, 2) of a competition file whose form is right."""
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines() or [""]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `make csv` writes it.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; `make csv` writes it anew.") from None
    if header != HEADER:
        hint = "np.savetxt puts the # there unless comments=''" if header.startswith("#") else "nothing else may stand there"
        raise UserError(f"{path}: line 1 is {header[:40]!r} and must be {HEADER!r}; {hint}.")
    if len(rows) != count * VALUES:
        raise UserError(
            f"{path}: {len(rows):,} of {count * VALUES:,} rows are there; "
            f"{count:,} faces need {VALUES} each, one a line, after the header."
        )
    return np.array([_value(row, index, path) for index, row in enumerate(rows)]).reshape(count, IBUG68.count, 2)


def _value(row: str, index: int, path: Path) -> float:
    where = f"{path}: line {index + 2}"
    identity, comma, text = row.partition(",")
    if not comma:
        raise UserError(f"{where} is {row[:40]!r}; expected an Id, a comma and a number.")
    if identity != str(index):
        if not (identity.isascii() and identity.isdigit()):
            raise UserError(f"{where}: Id {identity[:40]!r} is not a whole number; Id {index} belongs here.")
        again = "there is a second time" if len(identity) <= len(str(index)) and int(identity) < index else "is out of order"
        raise UserError(f"{where}: Id {identity[:40]} {again}; Id {index} belongs here.")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise UserError(f"{where}: Id {index} is {text[:40]!r}; expected a finite number of pixels.")
    return value


def _check_points(points_px: np.ndarray, faces: Faces, path: Path) -> None:
    boxes = faces.boxes_px
    sides = boxes[:, 2:].max(axis=1)
    # Relative to the box: centre 0, longer side 1. Values may be absurd here, and their squares infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        points = (points_px.astype(np.float64) - (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]) / sides[:, None, None]
        mean = points.mean(axis=1)
        off = np.linalg.norm(mean, axis=1)
        far = np.linalg.norm(points, axis=2).max(axis=1)
        spread = np.sqrt(np.square(points - mean[:, None]).sum(axis=2).mean(axis=1))
        upright = points[:, 8, 1] - points[:, IBUG68.regions["left brow"] + IBUG68.regions["right brow"], 1].mean(axis=1)
        left, right = IBUG68.eyes
        eyes = points[:, right, 0] - points[:, left, 0]
    other_frame = "are they in pixels of the original picture, x before y, with the box their crop was cut with?"
    # A NaN passes no comparison, so each line states what is right and not what is wrong.
    rules = [
        (np.isfinite(points).all(axis=(1, 2)), "a value is not finite", "look at the training curve.", far),
        (off <= FARTHEST_CENTRE, "the middle of the points lies {:.2g} box sides from the middle of the box", other_frame, off),
        (far <= FARTHEST_POINT, "a point lies {:.2g} box sides from the middle of the box", other_frame, far),
        (spread >= SPREAD[0], "the points crowd together, {:.2g} box sides about their middle", other_frame, spread),
        (spread <= SPREAD[1], "the points scatter, {:.2g} box sides about their middle", other_frame, spread),
        (upright >= LEAST_UPRIGHT, "the chin is not below the brows", "are x and y swapped?", upright),
        (eyes >= LEAST_EYES, "the eyes stand the wrong way round", "was a flip undone without the left/right swap?", eyes),
    ]
    right_faces = np.logical_and.reduce([rule[0] for rule in rules])
    if right_faces.all():
        return
    face = int(np.argmin(right_faces))
    defect, mend = next((text.format(measured[face]), mend) for right, text, mend, measured in rules if not right[face])
    wrong = int((~right_faces).sum())
    raise UserError(
        f"{path}: {faces.pictures[face]} (face {face + 1} of {len(faces)}, Ids {face * VALUES} to {(face + 1) * VALUES - 1}): "
        f"{defect}{f' ({wrong} faces are implausible)' if wrong > 1 else ''}; {mend}"
    )


def _kaggle() -> str | None:
    # Not on the PATH when the environment was not activated.
    return shutil.which("kaggle") or shutil.which("kaggle", path=str(Path(sys.executable).parent))


def _lacking(path: Path, competition: str | None) -> str | None:
    """What is missing for an upload, and the mend; None if nothing is."""
    by_hand = f"upload {path} by hand on the competition's page, or"
    if not competition:
        return f"no competition is named; {by_hand} name it with COMPETITION=... (the last part of its page's address)."
    if not _kaggle():
        return f"the Kaggle command line is not installed; {by_hand} run `pip install kaggle` and the same command again."
    if not _logged_in():
        half = [name for name in ("KAGGLE_USERNAME", "KAGGLE_KEY") if os.environ.get(name)]
        found = f"{half[0]} is set without its other half" if half else "the Kaggle command line has no login"
        return f"{found}; {by_hand} run `kaggle auth login`, or save a token from kaggle.com/settings to ~/.kaggle/access_token."
    return None


def _logged_in() -> bool:
    """Whether Kaggle's tool, versions 1.5 to 2.2, finds a login where it looks for one."""
    environment = os.environ.get
    if environment("KAGGLE_API_TOKEN") or (environment("KAGGLE_USERNAME") and environment("KAGGLE_KEY")):
        return True
    home = Path.home() / ".kaggle"
    elsewhere = Path(environment("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    folders = [Path(environment("KAGGLE_CONFIG_DIR"))] if environment("KAGGLE_CONFIG_DIR") else [home, elsewhere]
    files = [folder / "kaggle.json" for folder in folders]
    files += [home / name for name in ("access_token", "access_token.txt", "credentials.json")]
    return any(file.is_file() for file in files)
