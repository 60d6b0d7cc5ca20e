"""How to talk to Weights & Biases safely: one run a fold, the folds of an experiment in one group.

`metrics.csv` in the run folder is the truth; W&B only shows it, what of it stands in `wandb_view`. So trouble with W&B costs
one warning and the view, never the training: every call is caught, and none may take longer than its limit.
"""

import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from foldmark.core.errors import UserError
from foldmark.core.files import write_text

PROJECT = "foldmark"
ID_FILE = "wandb_id.txt"

# Seconds. A start takes about two and a call milliseconds; only a hanging service or network reaches these.
START_LIMIT, NETWORK_LIMIT, CALL_LIMIT, FINISH_LIMIT = 45, 15, 15, 60
UPLOAD_LIMIT = 300  # what an online run may still send when it ends, its checkpoint above all


class Tracker:
    """What one W&B run is told; a context manager that finishes it. Without a run it does nothing."""

    def __init__(self, run: Any = None):
        self._run = run

    @property
    def running(self) -> bool:
        """Whether anybody looks: what takes time to draw need not be drawn for nobody."""
        return self._run is not None

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Numbers of one step, None for the next one. W&B drops a step lower than the run's last one."""
        self._tell(lambda run: run.log(values, step=step))

    def show(self, build: Callable[[Any], dict[str, Any]], step: int | None = None, seconds: float = CALL_LIMIT) -> None:
        """Pictures, tables and charts: `build` makes them from the wandb module, by the keys they are logged under."""

        def send(run: Any) -> None:
            import wandb

            run.log(build(wandb), step=step)

        self._tell(send, seconds)

    def artifact(
        self, name: str, kind: str, files: Sequence[Path], metadata: dict, *, copied: bool = True, used: bool = False
    ) -> None:
        """A version of the artifact `name`: what this run made or, if `used`, what it was made from.

        W&B tells versions by their content, so a file that another run logged is that run's version again. It knows uses
        only online: offline, the metadata of what is made has to say them. Files that will not change need not be `copied`
        until they are uploaded.
        """

        def send(run: Any) -> None:
            import wandb

            if used and run.offline:
                return
            artifact = wandb.Artifact(_plain(name), type=kind, metadata=metadata)
            for path in files:
                artifact.add_file(str(path), policy="mutable" if copied else "immutable", skip_cache=True)
            if used:
                run.use_artifact(artifact)
            else:
                run.log_artifact(artifact)

        self._tell(send, UPLOAD_LIMIT if used else FINISH_LIMIT)

    def summary(self, values: dict[str, Any]) -> None:
        """The figures that stand for the whole run."""
        self._tell(lambda run: run.summary.update(values))

    def finish(self, failed: bool = False) -> None:
        limit = FINISH_LIMIT if self._run is None or self._run.offline else UPLOAD_LIMIT + FINISH_LIMIT
        self._tell(lambda run: run.finish(exit_code=int(failed)), limit)
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
            within(seconds, lambda: call(run))
        except Exception as error:
            self._run = None
            _go_on_without(error)


def start(
    experiment: str,
    name: str,
    job_type: str,
    config: dict,
    folder: Path,
    mode: str = "offline",
    *,
    notes: str = "",
    tags: Sequence[str] = (),
) -> Tracker:
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
    stay_in_this_folder()
    about = {"group": experiment, "name": name, "job_type": job_type, "config": config, "notes": notes or None, "tags": tags}
    try:
        if mode == "online":
            try:
                return Tracker(within(START_LIMIT, lambda: _init(about, folder, "online")))
            except Exception as error:
                print(f"W&B: {name} stays offline ({one_line(error)}); `make sync` uploads it later.", file=sys.stderr)
                _tear_down()  # or its service would still hold the run's id
                mode = "offline"
        return Tracker(within(START_LIMIT, lambda: _init(about, folder, mode)))
    except Exception as error:
        _go_on_without(error)
        return Tracker()


def stay_in_this_folder() -> None:
    """Keep W&B from writing outside wandb/, and from looking up a host name even for an offline run. Where the user has set
    folders, they hold. These are relative, so that an experiment's folder can move between training and upload."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", "wandb")
    os.environ.setdefault("WANDB_CACHE_DIR", "wandb/cache")


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
        finish_timeout=FINISH_LIMIT / 2 if mode == "offline" else UPLOAD_LIMIT,
        # A run may be shown to others: neither the machine's name nor where it keeps its files is theirs to know.
        host="",
        program="foldmark",
        x_executable="python",
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
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
    made = f"{_plain(name)[:80]}-{secrets.token_hex(3)}"
    write_text(path, made + "\n")
    return made


def _plain(name: str) -> str:
    """The name in the letters that W&B allows for ids and artifacts."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", name)


def within(seconds: float, call: Callable[[], Any]) -> Any:
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
    print(f"W&B: going on without it ({one_line(error)}); metrics.csv has everything.", file=sys.stderr)
    # Else W&B's exit hook prints a traceback, or waits for a dead service, when the process ends.
    _tear_down()


def _tear_down() -> None:
    def tear_down() -> None:
        import wandb

        wandb.teardown()

    with suppress(Exception):
        within(5, tear_down)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
