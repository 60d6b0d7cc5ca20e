"""Weights & Biases (W&B) runs that cannot harm a training: one run a fold, the folds of an experiment in one group.

`metrics.csv` in the run folder is the truth, and W&B only shows it. So an error of W&B costs one warning and the view: every
call is caught, and none may take longer than its limit.
"""

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foldmark.core.errors import UserError
from foldmark.core.files import read_kept, write_text
from foldmark.show.terminal import plain_text, say
from foldmark.show.wandb_calls import (
    NETWORK_LIMIT,
    UPLOAD_LIMIT,
    call_with_limit,
    has_arrived,
    is_set,
    mark_uploaded,
    record_artifacts,
    require_mode,
    shorten_error,
    stay_in_this_folder,
    tear_down,
)
from foldmark.show.wandb_file import is_complete, list_content, read_records

PROJECT = "foldmark"
RUN_FILE = "wandb.json"  # in the folder of what a W&B run shows: its id, and what else W&B is told at its start

# Seconds. A start takes about two and a call milliseconds; only a hanging service or network reaches these.
START_LIMIT, CALL_LIMIT, FINISH_LIMIT = 45, 15, 60
WRITE_LIMIT = 5  # for what an ended offline run has left to write
FLUSH_EVERY = 1.0  # to this disk, which is all that a killed process leaves


@dataclass(frozen=True)
class RunInfo:
    """The identity of a W&B run. It is kept in `folder` with an id, so that a resumed fold continues the same run."""

    experiment: str  # the group of its folds
    name: str
    job_type: str
    config: dict
    folder: Path
    notes: str = ""
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Artifact:
    """Files that a run makes: a version of the artifact of that name, with other names for this version."""

    name: str
    kind: str
    files: Sequence[Path]
    metadata: dict
    aliases: Sequence[str] = ()


class Tracker:
    """One W&B run to log to; a context manager that finishes it. Without a run it does nothing."""

    def __init__(self, run: Any = None) -> None:
        self._run = run
        self._last_step = -1

    @property
    def running(self) -> bool:
        """Whether there is a run, so that what it shows is worth making."""
        return self._run is not None

    @property
    def takes_pictures(self) -> bool:
        """Whether there is a run that pictures of faces may go into: WANDB_PICTURES=0 keeps them out."""
        return self.running and is_set("WANDB_PICTURES", default=True)

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Numbers of one step, None for the next one. Of a resumed online run, W&B drops the steps that its service has."""
        self._last_step = self._last_step if step is None else step
        self._call(lambda run: run.log(values, step=step))

    def show(self, build: Callable[[Any], dict[str, Any]], step: int | None = None, seconds: float = CALL_LIMIT) -> None:
        """Pictures, tables and charts: `build` makes them from the wandb module, by the keys they are logged under."""

        def send(run: Any) -> None:
            import wandb

            run.log(build(wandb), step=step)

        self._call(send, seconds)

    def artifact(self, made: Artifact, *, used: bool = False) -> None:
        """A version of an artifact that this run made or, if `used`, was made from.

        W&B knows versions by their content, so a file that another run logged is that run's version again. Models do not change,
        so they are not copied until they are uploaded.
        """

        def send(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(_allowed(made.name), type=made.kind, metadata=made.metadata)
            for path in made.files:
                # Relative, so that the folder may move before the upload, and its place stays the user's own.
                path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
                artifact.add_file(str(path), policy="immutable" if made.kind == "model" else "mutable", skip_cache=True)
            # As use_artifact does, which refuses offline and, online, waits for the upload.
            how = {"use_after_commit": True, "is_user_created": True} if used else {"aliases": ["latest", *made.aliases]}
            run._log_artifact(artifact, **how)

        self._call(send, FINISH_LIMIT)

    def summary(self, values: dict[str, Any]) -> None:
        """The figures that stand for the whole run."""
        self._call(lambda run: run.summary.update(values))

    def alert(self, title: str, text: str, *, error: bool = False) -> None:
        """Have W&B notify the user, who asks for it with WANDB_ALERTS=1. Not offline: it would come days late."""

        def send(run: Any) -> None:
            if not run.offline:
                run.alert(title, text.replace(f"{Path.cwd()}{os.sep}", ""), level="ERROR" if error else "INFO")

        if is_set("WANDB_ALERTS", default=False):
            self._call(send)

    def finish(self, failed: bool = False) -> None:
        """End the run. What an online run could not send in time stays on this disk, for `make sync`."""
        run = self._run
        if run is None:
            return
        end, limit = (finish_offline, FINISH_LIMIT) if run.offline else (finish_online, UPLOAD_LIMIT + FINISH_LIMIT)
        self._call(lambda run: end(run, failed, self._last_step), limit)
        self._run = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        if isinstance(error, UserError) and self._run is not None:
            self.alert(f"{self._run.name} has stopped", str(error), error=True)
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
    require_mode(mode, "WANDB_MODE")
    # A typing error must not wait for the first picture.
    for variable in ("WANDB_PICTURES", "WANDB_ALERTS"):
        is_set(variable, default=False)
    if mode == "disabled":
        return Tracker()
    stay_in_this_folder()
    try:
        key = _keep_identity(run)  # first, so that `make sync` knows of it whatever becomes of W&B
        if mode == "online":
            try:
                started = call_with_limit(START_LIMIT, lambda: _init(run, key, "online"))
                say(f"W&B shows {run.name} at {started.url}")
                return Tracker(started)
            except Exception as error:
                _warn(f"W&B: {run.name} stays offline ({shorten_error(error)}); `make sync` uploads it later.")
                tear_down()  # or its service would still hold the run's id
        return Tracker(call_with_limit(START_LIMIT, lambda: _init(run, key, "offline")))
    except Exception as error:
        _go_on_without(error)
        return Tracker()


def finish_offline(run: Any, failed: bool, last_step: int) -> None:
    """End an offline run. Raises an error where its file has not all of it, as on a full disk: W&B itself says nothing."""
    run.finish(exit_code=int(failed))
    _wait_for_file(run, last_step)


def finish_online(run: Any, failed: bool, last_step: int) -> None:
    """End an online run and mark it as uploaded. Raises an error where the service has not all of it: W&B may end in silence."""
    run.finish(exit_code=int(failed))
    file = _wait_for_file(run, last_step)
    if not has_arrived(run.path, list_content(read_records(file), last_step)):
        raise ConnectionError("not all of it arrived")
    mark_uploaded(file)


def _wait_for_file(run: Any, last_step: int) -> Path:
    """The file of an ended run, once it has all of it."""
    file = Path(run.settings.sync_file)
    for _ in range(100):  # W&B's process writes the rest a little later
        if is_complete(file, last_step):
            return file
        time.sleep(WRITE_LIMIT / 100)
    raise OSError(f"{file.parent}: not all of it could be written, is the disk full?")


def _init(run: RunInfo, key: str, mode: Literal["online", "offline"]) -> Any:
    import wandb

    # W&B's own settings must be silent, too: some warnings are printed outside any run.
    wandb.setup(settings=wandb.Settings(silent=True, mode=mode))
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConnectionError("not logged in, `wandb login` does that")
    settings = wandb.Settings(
        silent=True,
        reinit="create_new",  # else a run that hangs stands in the way of the next one
        console="off",
        save_code=False,
        disable_git=True,
        init_timeout=NETWORK_LIMIT,
        finish_timeout=FINISH_LIMIT / 2 if mode == "offline" else UPLOAD_LIMIT,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=FLUSH_EVERY,
        # A run may be shown to others: it holds neither the machine's name nor its paths.
        host="",
        program="foldmark",
        x_executable="python",
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    started = wandb.init(
        project=PROJECT,
        dir=".",
        mode=mode,
        id=key,
        resume="allow",
        settings=settings,
        group=run.experiment,
        name=run.name,
        job_type=run.job_type,
        config=run.config,
        notes=run.notes or None,
        tags=run.tags,
    )
    if mode == "online":
        record_artifacts(started)
    return started


def read_identity(file: Path) -> dict[str, Any] | None:
    """What a folder's RUN_FILE says of its W&B run, by RunInfo's names and `id`; None where it is missing or damaged."""

    def parse(content: bytes) -> dict[str, Any]:
        stored = json.loads(content)
        if not re.fullmatch(r"[\w.-]{1,100}", stored["id"], re.ASCII):
            raise ValueError("not an id of W&B's")
        return {key: stored[key] for key in ("id", "experiment", "name", "job_type", "config", "notes", "tags")}

    return read_kept(file, parse, "W&B gets a new run")


def _keep_identity(run: RunInfo) -> str:
    """The run's id, new at the first start. It begins with what tells the run from others of its experiment, such as f0, because
    the dashboard lists ids and, on 80 columns, shows 3 characters of each."""
    path = run.folder / RUN_FILE
    kept = read_identity(path)
    own = re.sub(r"^([ft])(?:old|rial)(?=\d)", r"\1", run.name.removeprefix(run.experiment).strip("-/"))
    key = kept["id"] if kept else f"{_allowed(f'{own}-{run.experiment}')[:80]}-{secrets.token_hex(3)}"
    about = {name: value for name, value in vars(run).items() if name != "folder"}
    write_text(path, json.dumps({"id": key, **about, "tags": list(run.tags)}, indent=1) + "\n")
    return key


def _allowed(name: str) -> str:
    """The name in the characters that W&B allows for ids and artifacts."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", name)


def _go_on_without(error: Exception) -> None:
    _warn(f"W&B: going on without it ({shorten_error(error)}); metrics.csv has everything, `make sync` uploads the rest.")
    tear_down()


def _warn(text: str) -> None:
    print(plain_text(text), file=sys.stderr)
