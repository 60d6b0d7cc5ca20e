"""Weights & Biases (W&B) runs that cannot harm a training: one run a fold, the folds of an experiment in one group.

`metrics.csv` in the run folder is the truth, and W&B only shows it. So an error of W&B costs one warning and the view: every
call is caught, and none may take longer than its limit.
"""

import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from foldmark.core.errors import UserError
from foldmark.core.files import read_kept, write_text
from foldmark.show.terminal import plain_text

PROJECT = "foldmark"
ID_FILE = "wandb_id.txt"

# Seconds. A start takes about two and a call milliseconds; only a hanging service or network reaches these.
START_LIMIT, NETWORK_LIMIT, CALL_LIMIT, FINISH_LIMIT = 45, 15, 15, 60
UPLOAD_LIMIT = 300  # what an online run may still send when it ends, its checkpoint above all


@dataclass(frozen=True)
class RunInfo:
    """The identity of a W&B run. Its id is kept in `folder`, so that a resumed fold continues the same run."""

    experiment: str  # the group of its folds
    name: str
    job_type: str
    config: dict
    folder: Path
    notes: str = ""
    tags: Sequence[str] = ()


class Tracker:
    """One W&B run to log to; a context manager that finishes it. Without a run it does nothing."""

    def __init__(self, run: Any = None) -> None:
        self._run = run

    @property
    def running(self) -> bool:
        """Whether there is a run, so that pictures are worth drawing."""
        return self._run is not None

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Numbers of one step, None for the next one. W&B drops a step lower than the run's last one."""
        self._call(lambda run: run.log(values, step=step))

    def show(self, build: Callable[[Any], dict[str, Any]], step: int | None = None, seconds: float = CALL_LIMIT) -> None:
        """Pictures, tables and charts: `build` makes them from the wandb module, by the keys they are logged under."""

        def send(run: Any) -> None:
            import wandb

            run.log(build(wandb), step=step)

        self._call(send, seconds)

    def artifact(self, name: str, kind: str, files: Sequence[Path], metadata: dict, *, used: bool = False) -> None:
        """A version of the artifact `name` that this run made or, if `used`, was made from.

        W&B knows versions by their content, so a file that another run logged is that run's version again. Uses are recorded
        online only: offline, name them in the metadata of what is made. Models do not change, so they are not copied until they
        are uploaded.
        """

        def send(run: Any) -> None:
            import wandb

            if used and run.offline:
                return
            artifact = wandb.Artifact(_allowed(name), type=kind, metadata=metadata)
            for path in files:
                # Relative, so that the folder may move before the upload, and its place stays the user's own.
                path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
                artifact.add_file(str(path), policy="immutable" if kind == "model" else "mutable", skip_cache=True)
            if used:
                run.use_artifact(artifact)
            else:
                run.log_artifact(artifact)

        self._call(send, UPLOAD_LIMIT if used else FINISH_LIMIT)

    def summary(self, values: dict[str, Any]) -> None:
        """The figures that stand for the whole run."""
        self._call(lambda run: run.summary.update(values))

    def finish(self, failed: bool = False) -> None:
        limit = FINISH_LIMIT if self._run is None or self._run.offline else UPLOAD_LIMIT + FINISH_LIMIT
        self._call(lambda run: run.finish(exit_code=int(failed)), limit)
        self._run = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.finish(failed=kind is not None)

    def _call(self, call: Callable[[Any], Any], seconds: float = CALL_LIMIT) -> None:
        run = self._run
        if run is None:
            return
        try:
            call_with_limit(seconds, lambda: call(run))
        except Exception as error:
            self._run = None
            _go_on_without(error)


def start(run: RunInfo, mode: str = "offline") -> Tracker:
    """Start a W&B run under wandb/ in the current folder, or resume the one whose id its folder holds.

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
    stay_in_this_folder()
    try:
        if mode == "online":
            try:
                return Tracker(call_with_limit(START_LIMIT, lambda: _init(run, "online")))
            except Exception as error:
                _warn(f"W&B: {run.name} stays offline ({shorten_error(error)}); `make sync` uploads it later.")
                _tear_down()  # or its service would still hold the run's id
        return Tracker(call_with_limit(START_LIMIT, lambda: _init(run, "offline")))
    except Exception as error:
        _go_on_without(error)
        return Tracker()


def stay_in_this_folder() -> None:
    """Keep W&B from writing outside wandb/, and from looking up a host name for an offline run. Folders that the user has set
    are kept. These are relative, so that an experiment's folder can move between training and upload."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", "wandb")
    os.environ.setdefault("WANDB_CACHE_DIR", "wandb/cache")


def _init(run: RunInfo, mode: Literal["online", "offline"]) -> Any:
    import wandb

    # W&B's own settings must be silent, too: some warnings are printed outside any run.
    wandb.setup(settings=wandb.Settings(silent=True, mode=mode))
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConnectionError("not logged in, `wandb login` does that")
    settings = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        init_timeout=NETWORK_LIMIT,
        finish_timeout=FINISH_LIMIT / 2 if mode == "offline" else UPLOAD_LIMIT,
        # A run may be shown to others: it holds neither the machine's name nor its paths.
        host="",
        program="foldmark",
        x_executable="python",
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    return wandb.init(
        project=PROJECT,
        dir=".",
        mode=mode,
        id=_run_id(run.folder, run.name),
        resume="allow",
        settings=settings,
        group=run.experiment,
        name=run.name,
        job_type=run.job_type,
        config=run.config,
        notes=run.notes or None,
        tags=run.tags,
    )


def _run_id(folder: Path, name: str) -> str:
    """The id kept in `folder`, new at the first start. It begins with the run's name, because the dashboard lists ids."""
    path = folder / ID_FILE
    kept = read_kept(path, lambda content: content.decode().strip()) or ""
    if re.fullmatch(r"[\w.-]{1,100}", kept, re.ASCII):
        return kept
    new = f"{_allowed(name)[:80]}-{secrets.token_hex(3)}"
    write_text(path, new + "\n")
    return new


def _allowed(name: str) -> str:
    """The name in the characters that W&B allows for ids and artifacts."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", name)


def call_with_limit(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of `call`, which runs in a thread. Raises TimeoutError when it takes longer; the thread is left behind."""
    outcome: Future[Any] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome.result(seconds)


def _go_on_without(error: Exception) -> None:
    _warn(f"W&B: going on without it ({shorten_error(error)}); metrics.csv has everything.")
    # Else W&B's exit hook prints a traceback, or waits for a dead service, when the process ends.
    _tear_down()


def _tear_down() -> None:
    def tear_down() -> None:
        import wandb

        wandb.teardown()

    with suppress(Exception):
        call_with_limit(5, tear_down)


def _warn(text: str) -> None:
    print(plain_text(text), file=sys.stderr)


def shorten_error(error: Exception) -> str:
    """An error's message on one line, cut to 120 characters."""
    return " ".join(str(error).split())[:120] or type(error).__name__
