"""The W&B runs of this folder: a dashboard in the terminal, and their upload."""

import json
import subprocess
import sys
import time
from pathlib import Path

from foldmark.core.errors import UserError
from foldmark.runs.experiment import Session
from foldmark.show.terminal import say
from foldmark.show.tracker import NETWORK_LIMIT, call_with_limit, shorten_error, stay_in_this_folder

# A run that is being made is written to at least every 15 seconds.
STILL_WRITTEN = 60  # seconds
WANDB = [sys.executable, "-m", "wandb"]


def dashboard(session: Session) -> int:
    """Open W&B's terminal dashboard over the runs made here and return its exit code.

    Raises UserError when there is nothing to show, or no terminal to show it in.
    """
    runs = _find_runs(session.places.wandb)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(f"{runs}: the dashboard needs a terminal; `wandb leet inspect --summary {runs}` prints the latest run.")
    return subprocess.run([*WANDB, "leet", "run", str(runs)]).returncode


def sync(session: Session) -> None:
    """Upload the offline runs that are not uploaded yet. W&B marks each uploaded run by a file beside it.

    Raises UserError without a run, a login or an answer from the server, and if a run did not arrive.
    """
    runs = _find_runs(session.places.wandb)
    waiting = [file for file in sorted(runs.glob("offline-run-*/run-*.wandb")) if file.is_file() and not _synced(file)]
    # A run that is sent while it grows is marked as sent, and the rest of it is never sent.
    growing = [file for file in waiting if time.time() - file.stat().st_mtime < STILL_WRITTEN and not _ended(file)]
    for file in growing:
        say(f"{file.parent}: is still being written; upload it when its training has ended.")
    waiting = [file for file in waiting if file not in growing]
    if not waiting:
        say(f"{runs}: all finished runs are uploaded, nothing to do.")
        return
    stay_in_this_folder()
    require_login()
    subprocess.run([*WANDB, "sync", *(str(file.parent) for file in waiting)])
    failed = [file.parent.name for file in waiting if not _synced(file)]
    if failed:
        raise UserError(f"{runs}: {len(failed)} of {len(waiting)} runs did not arrive, {failed[0]} first; run make sync again.")
    say(f"uploaded: {len(waiting)} runs. Next: make workspace (a page of curves, faces and variants over them)")


def require_login() -> str:
    """The user's W&B name. Raises UserError unless W&B knows it and its server agrees."""
    try:
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        logged_in = wandb.login(prompt=False, verify=False)
    except Exception as error:
        raise UserError(f"W&B: cannot start ({shorten_error(error)}); check that it is installed.") from None
    if not logged_in:
        raise UserError("W&B: not logged in; run `.venv/bin/wandb login` once, then the same command again.")
    try:
        return call_with_limit(NETWORK_LIMIT, lambda: wandb.Api(timeout=NETWORK_LIMIT - 5).viewer.entity)
    except TimeoutError:
        raise UserError("W&B: its server does not answer; check the network, then run the same command again.") from None
    except Exception as error:
        raise UserError(f"W&B: the login does not work ({shorten_error(error)}); check the network and `wandb login`.") from None


def _find_runs(runs: Path) -> Path:
    if not any(file.is_file() for file in runs.glob("*run-*/run-*.wandb")):
        raise UserError(f"{runs}: no runs there yet; `make train` makes the first one.")
    return runs


def _ended(file: Path) -> bool:
    """Whether W&B's own reader finds the record that ends a run."""
    command = [*WANDB, "leet", "inspect", "--json", str(file.parent)]
    printed = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    try:
        return bool(json.loads(printed.splitlines()[-1])["type"] == "exit")
    except (ValueError, LookupError, TypeError):
        return False


def _synced(file: Path) -> bool:
    return file.with_name(f"{file.name}.synced").exists()
