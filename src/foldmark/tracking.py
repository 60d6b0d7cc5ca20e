"""Weights & Biases as a view: one run a fold, the folds of an experiment in one group.

`metrics.csv` in the run folder is the truth; what is here only shows it. So trouble with W&B costs one warning and the
view, never the training: every call is caught, and none may take longer than its limit.
"""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from foldmark.errors import UserError
from foldmark.files import write_text

PROJECT = "foldmark"
ID_FILE = "wandb_id.txt"

# Seconds. A start takes about two and a call milliseconds; only a hanging service or network reaches these.
START_LIMIT, NETWORK_LIMIT, CALL_LIMIT, FINISH_LIMIT = 45, 15, 15, 60


class Tracker:
    """What one W&B run is told; a context manager that finishes it. Without a run it does nothing."""

    def __init__(self, run: Any = None):
        self._run = run

    def log(self, values: dict[str, Any], step: int) -> None:
        """Numbers of one step. W&B drops a step lower than the run's last one."""
        self._tell(lambda run: run.log(values, step=step))

    def pictures(self, key: str, pictures: list[tuple[np.ndarray, str]], step: int) -> None:
        """Pictures, uint8 (H, W, 3) RGB, each with its caption."""

        def send(run: Any) -> None:
            import wandb

            run.log({key: [wandb.Image(picture, caption=caption) for picture, caption in pictures]}, step=step)

        self._tell(send)

    def summary(self, values: dict[str, Any]) -> None:
        """The figures that stand for the whole run."""
        self._tell(lambda run: run.summary.update(values))

    def finish(self, failed: bool = False) -> None:
        self._tell(lambda run: run.finish(exit_code=int(failed)), FINISH_LIMIT)
        self._run = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.finish(failed=kind is not None)

    def _tell(self, call: Callable[[Any], Any], seconds: float = CALL_LIMIT) -> None:
        run = self._run
        if run is None:
            return
        try:
            _within(seconds, lambda: call(run))
        except Exception as error:
            self._run = None
            _go_on_without(error)


def start(experiment: str, name: str, job_type: str, config: dict, folder: Path, mode: str = "offline") -> Tracker:
    """Start a W&B run under wandb/ in the current folder, or go on with the one whose id `folder` holds.

    `mode` is offline, online or disabled; the environment variable WANDB_MODE replaces the default, offline. Online
    without a login or a network becomes offline. Raises UserError for any other mode.
    """
    if mode == "offline":
        mode = os.environ.get("WANDB_MODE") or mode
        mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)  # W&B's older names
    if mode not in ("offline", "online", "disabled"):
        raise UserError(f"WANDB_MODE={mode}: no such mode; use offline, online or disabled.")
    if mode == "disabled":
        return Tracker()
    # Without this, W&B's service looks up a host name even for an offline run.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    about = {"group": experiment, "name": name, "job_type": job_type, "config": config}
    try:
        if mode == "online":
            try:
                return Tracker(_within(START_LIMIT, lambda: _init(about, folder, "online")))
            except Exception as error:
                print(f"W&B: {name} stays offline ({_one_line(error)}); `make sync` uploads it later.", file=sys.stderr)
                _tear_down()  # or its service would still hold the run's id
                mode = "offline"
        return Tracker(_within(START_LIMIT, lambda: _init(about, folder, mode)))
    except Exception as error:
        _go_on_without(error)
        return Tracker()


def dashboard(folder: Path = Path()) -> int:
    """Open W&B's terminal dashboard over the runs in `folder`/wandb and return its exit code.

    Raises UserError when there is nothing to show, or no terminal to show it in.
    """
    runs = folder / "wandb"
    if not any(runs.glob("*run-*/run-*.wandb")):
        raise UserError(f"{runs}: no runs to show yet; `make train` makes the first one.")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(f"{runs}: the dashboard needs a terminal; `wandb leet inspect --summary {runs}` prints the latest run.")
    return subprocess.run([sys.executable, "-m", "wandb", "leet", "run", str(runs)]).returncode


def _init(about: dict, folder: Path, mode: str) -> Any:
    import wandb

    # W&B's own settings, and not only the run's, must be silent: some warnings are printed outside any run.
    wandb.setup(settings=wandb.Settings(silent=True, mode=mode))
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConnectionError("not logged in, `wandb login` does that")
    settings = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        init_timeout=NETWORK_LIMIT,
        finish_timeout=FINISH_LIMIT / 2,
    )
    return wandb.init(
        project=PROJECT, dir=".", mode=mode, id=_run_id(folder, about["name"]), resume="allow", settings=settings, **about
    )


def _run_id(folder: Path, name: str) -> str:
    """The id kept in `folder`, made at the first start. It begins with the run's name, because the dashboard's list
    shows ids."""
    path = folder / ID_FILE
    kept = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    if re.fullmatch(r"[\w.-]{1,100}", kept, re.ASCII):
        return kept
    made = f"{re.sub(r'[^a-zA-Z0-9_.-]', '-', name)[:80]}-{secrets.token_hex(3)}"
    write_text(path, made + "\n")
    return made


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of `call`, made in a thread that is left behind when it takes longer (TimeoutError)."""
    outcome = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome.result(seconds)


def _go_on_without(error: Exception) -> None:
    print(f"W&B: going on without it ({_one_line(error)}); metrics.csv has everything.", file=sys.stderr)
    # Else W&B's exit hook prints a traceback, or waits for a dead service, when the process ends.
    _tear_down()


def _tear_down() -> None:
    def tear_down() -> None:
        import wandb

        wandb.teardown()

    with suppress(Exception):
        _within(5, tear_down)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
