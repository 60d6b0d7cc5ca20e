"""The upload of a checked competition file with Kaggle's own command line."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256

UPLOAD_LIMIT = 600  # seconds
# Older versions of the Kaggle tool end with exit code 0 after these.
FAILURE = re.compile(r"could not|\b[45]\d\d (- |client error|server error)|forbidden|unauthorized", re.IGNORECASE)


def upload_submission(csv: Path, sha256: str, competition: str, message: str) -> str:
    """Upload a competition file with the Kaggle command line, and return the tool's answer.

    sha256: of the content that was checked; another content is refused. Raises UserError when the upload fails.
    """
    with tempfile.TemporaryDirectory(prefix="foldmark-") as folder:
        # A copy, because the file may be replaced while the tool reads it.
        copy = Path(shutil.copyfile(csv, Path(folder) / csv.name))
        if file_sha256(copy) != sha256:
            raise UserError(f"{csv}: has changed since it was checked; run the same command again.")
        command = [_kaggle() or "kaggle", "competitions", "submit", "-c", competition, "-f", str(copy), "-m", message]
        done = _run(command, csv)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
    failures = [line for line in lines if FAILURE.search(line)]
    if done.returncode or failures:
        raise UserError(f"{csv} was not uploaded to {competition}; Kaggle's tool says: {(failures or lines)[-1]}")
    return lines[-1]


def find_obstacle(csv: Path, competition: str | None) -> str | None:
    """The obstacle to an upload, and the fix; None if there is none."""
    by_hand = f"upload {csv} by hand on the competition's page, or"
    if not competition:
        return f"no competition is named; {by_hand} name it with COMPETITION=... (the last part of its page's address)."
    if not _kaggle():
        return f"the Kaggle command line is not installed; {by_hand} run `pip install kaggle` and the same command again."
    if not _logged_in():
        half = [name for name in ("KAGGLE_USERNAME", "KAGGLE_KEY") if os.environ.get(name)]
        found = f"{half[0]} is set without its other half" if half else "the Kaggle command line has no login"
        return f"{found}; {by_hand} run `kaggle auth login`, or save a token from kaggle.com/settings to ~/.kaggle/access_token."
    return None


def _run(command: list[str], csv: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
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
            f"{csv}: Kaggle did not answer within {UPLOAD_LIMIT // 60} minutes; "
            "see on the competition's page whether it arrived before trying again."
        ) from None
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be run ({error.strerror}); install it again.") from None


def _kaggle() -> str | None:
    # Not on the PATH when the environment was not activated.
    return shutil.which("kaggle") or shutil.which("kaggle", path=str(Path(sys.executable).parent))


def _logged_in() -> bool:
    """Whether Kaggle's tool, versions 1.5 to 2.2, finds a login where it looks for one."""
    environment = os.environ.get
    if environment("KAGGLE_API_TOKEN") or (environment("KAGGLE_USERNAME") and environment("KAGGLE_KEY")):
        return True
    home = Path.home() / ".kaggle"
    elsewhere = Path(environment("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    configured = environment("KAGGLE_CONFIG_DIR")
    folders = [Path(configured)] if configured else [home, elsewhere]
    files = [folder / "kaggle.json" for folder in folders]
    files += [home / name for name in ("access_token", "access_token.txt", "credentials.json")]
    return any(file.is_file() for file in files)
