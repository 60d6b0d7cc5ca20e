"""The W&B runs of this folder: a dashboard in the terminal, and their upload."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256, is_locked, lock_file, place_folder, write_text
from foldmark.report.wandb import collect_epoch_values, collect_figures
from foldmark.runs.experiment import Session
from foldmark.runs.fold_folder import FoldFolder
from foldmark.runs.places import FROM_WANDB, Places
from foldmark.runs.run_folder import RunFolder
from foldmark.show.terminal import say
from foldmark.show.tracker import PROJECT, RUN_FILE, read_identity
from foldmark.show.wandb_calls import (
    NETWORK_LIMIT,
    UPLOAD_LIMIT,
    call_with_limit,
    has_arrived,
    is_uploaded,
    limit_retries,
    mark_uploaded,
    read_last_step,
    shorten_error,
    stay_in_this_folder,
    tear_down,
)
from foldmark.show.wandb_file import (
    Content,
    end_run,
    find_run,
    has_ended,
    list_content,
    make_run,
    read_records,
    select_missing,
    write_records,
)
from foldmark.show.wandb_view import show_first

Answer = TypeVar("Answer")

# A run that is being made is written to at least every 15 seconds.
STILL_WRITTEN = 60  # seconds
WANDB = [sys.executable, "-m", "wandb"]
AFTER_FOLDS = ("ensemble", "submit")  # jobs, each of which uses what those before have made


def dashboard(session: Session) -> int:
    """Open W&B's terminal dashboard over the runs made here, with the folds of the latest experiment, and return its exit code.

    Raises UserError when there is nothing to show, or no terminal to show it in.
    """
    runs = _find_runs(session.places.wandb)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(f"{runs}: the dashboard needs a terminal; `wandb leet inspect --summary {runs}` prints the latest run.")
    files = [(file, run) for file in _list_files(runs) if (run := find_run(file))]
    if files:
        latest, last = files[-1]
        folds = [file.parent for file, run in files if run.run_group == last.run_group and run.job_type not in AFTER_FOLDS]
        show_first(runs, folds or [latest.parent], latest.parent)
    stay_in_this_folder()
    os.environ.setdefault("WANDB_CONFIG_DIR", "wandb/config")
    return subprocess.run([*WANDB, "leet", "run", str(runs)]).returncode


def sync(session: Session) -> None:
    """Upload what W&B's service lacks of the runs made here: of those made offline, and of those online that were cut off. Every
    epoch of a fold's metrics.csv arrives once, in order, however often training or an upload was killed.

    Raises UserError without a run, a login or an answer from the server, and if a run did not arrive.
    """
    folders = _find_folders(session.places.runs)
    for fold in folders.values():
        _write_lost_run(session.places.wandb, fold)
    runs = _find_runs(session.places.wandb)
    parts = _list_parts(runs)
    for key in [key for key, files in parts.items() if any(_is_growing(file, folders.get(key)) for file in files)]:
        say(f"{parts.pop(key)[-1].parent}: is still being written; upload it when its training has ended.")
    if not parts:
        say(f"{runs}: all finished runs are uploaded, nothing to do.")
        return
    entity = require_login()
    missing = set(parts)
    # What uses an artifact goes after the run that made it: W&B would take the one that comes first for its maker.
    for stage in range(len(AFTER_FOLDS) + 1):
        left = {key: files for key, files in parts.items() if _find_stage(files[0]) == stage}
        failed = set[str]()
        # What the service lacks of a run depends on the parts before, so these go one after the other.
        while left:
            uploads = {key: Upload(files[0], folders.get(key), entity) for key, files in left.items()}
            copies = [upload.copy for upload in uploads.values() if upload.prepare()]
            if copies:
                command = [*WANDB, "sync", "--include-online", *map(str, copies)]
                subprocess.run(command, env={**limit_retries(), **os.environ})
            failed |= {key for key, upload in uploads.items() if not upload.finish()}
            missing -= uploads.keys() - failed
            left = {key: files[1:] for key, files in left.items() if files[1:] and key not in failed}
        if failed:
            name = min(failed)
            raise UserError(f"{runs}: {len(missing)} of {len(parts)} runs did not arrive, {name} first; run make sync again.")
    count = f"{len(parts)} {'run' if len(parts) == 1 else 'runs'}"
    say(f"uploaded: {count}. Next: make workspace (a page of curves, faces and variants over them)")


class Upload:
    """The upload of one file of a run: of a copy beside it that holds what the service lacks."""

    def __init__(self, file: Path, fold: FoldFolder | None, entity: str) -> None:
        self.file, self.fold, self.entity = file, fold, entity
        self.copy = file.with_name("upload.wandb")
        self.path = ""  # of the run in W&B
        self.content: Content | None = None
        self.readable = True

    def prepare(self) -> bool:
        """Write the copy. False where the file cannot be read, which is said, and where it holds no run: its process was killed
        before the first second was over."""
        self._remove_copy()
        try:
            records = read_records(self.file)
        except (OSError, ValueError) as error:
            say(f"{self.file}: cannot be read ({error}), so left out.")
            self.readable = False
            return False
        run = next((record.run for record in records if record.HasField("run")), None)
        if run is None:
            return False
        self.path = f"{run.entity or self.entity}/{run.project or PROJECT}/{run.run_id}"
        rows = _collect_rows(self.fold) if self.fold else {}
        self.content = list_content(records, max(rows, default=-1))
        if self.fold and (summary := self.fold.summary):
            # Also where W&B's own process died before training came to its end.
            records = end_run(records, {**rows.get(max(rows, default=0), {}), **collect_figures(summary)})
        write_records(self.copy, select_missing(records, ask(read_last_step, self.path), rows))
        return True

    def finish(self) -> bool:
        """Mark the file where all of it arrived; whether it did. One that cannot be read is not marked, and not missed."""
        arrived = self.content is None or (is_uploaded(self.copy) and ask(has_arrived, self.path, self.content))
        self._remove_copy()
        if arrived and self.readable:
            mark_uploaded(self.file)
        return arrived

    def _remove_copy(self) -> None:
        for left in self.file.parent.glob(f"{self.copy.name}*"):
            left.unlink()


def fetch_source(places: Places, key: str, source: str) -> None:
    """Fetch the models that a key of `config.sources` names from W&B, if it names some there and they are not here: wandb:NAME or
    wandb:NAME:ALIAS, whose folds are the artifacts NAME-fold0, NAME-fold1 and so on. Raises UserError where there are none, or
    damaged ones."""
    folder = places.source(source)
    if not source.startswith(FROM_WANDB) or folder.is_dir():
        return
    if not re.fullmatch(r"[\w.-]+(:[\w.-]+)?", source.removeprefix(FROM_WANDB), re.ASCII):
        raise UserError(f"{key}: {source}: write wandb:NAME or wandb:NAME:ALIAS, as in wandb:resnet18:v0.")
    name, _, alias = source.removeprefix(FROM_WANDB).partition(":")
    entity = require_login()
    with lock_file(folder):
        if folder.is_dir():  # another process has fetched them
            return
        shutil.rmtree(partial := folder.with_name(f"{folder.name}.partial"), ignore_errors=True)
        for fold in itertools.count():
            path = f"{entity}/{PROJECT}/{name}-fold{fold}:{alias or 'latest'}"
            if not ask(fetch_model, path, RunFolder(partial).fold(fold), seconds=UPLOAD_LIMIT):
                break
        if not fold:
            raise UserError(f"{key}: {source}: no model {path} in W&B; its page lists them under Artifacts.")
        place_folder(partial, folder)
    say(f"{source}: {fold} folds from W&B, kept in {folder}")


def fetch_model(path: str, fold: FoldFolder) -> bool:
    """Fetch a model from W&B as the folder of a finished fold, with its run's config and split; whether there is one. Raises
    UserError for a checkpoint that is not the one that was logged."""
    import wandb

    api = wandb.Api(timeout=NETWORK_LIMIT - 5)
    if not api.artifact_exists(path, type="model"):
        return False
    artifact, run = api.artifact(path, type="model"), RunFolder(fold.path.parent)
    artifact.download(root=str(fold.path), skip_cache=True)
    if file_sha256(fold.checkpoint) != artifact.metadata.get("sha256"):
        raise UserError(f"{path}: is not the checkpoint that was logged; log it again, or name another version.")
    for file in (run.config_file, run.split_file):
        (fold.path / file.name).replace(file)
    write_text(fold.summary_file, json.dumps(artifact.metadata))
    return True


def require_login() -> str:
    """The user's name in W&B, or the team's in WANDB_ENTITY. Raises UserError without a login that W&B's server takes."""
    stay_in_this_folder()
    try:
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        logged_in = wandb.login(prompt=False, verify=False)
    except Exception as error:
        raise UserError(f"W&B: cannot start ({shorten_error(error)}); check that it is installed.") from None
    if not logged_in:
        raise UserError("W&B: not logged in; run `.venv/bin/wandb login` once, then the same command again.")
    return os.environ.get("WANDB_ENTITY") or ask(lambda: wandb.Api(timeout=NETWORK_LIMIT - 5).viewer.entity)


def ask(question: Callable[..., Answer], *about: object, seconds: float = NETWORK_LIMIT) -> Answer:
    """The answer of W&B's service. Raises UserError where it does not answer, or not to this login."""
    try:
        return call_with_limit(seconds, lambda: question(*about))
    except UserError:
        raise
    except TimeoutError:
        tear_down()
        raise UserError("W&B: its server does not answer; check the network, then run the same command again.") from None
    except Exception as error:
        tear_down()
        raise UserError(f"W&B: the login does not work ({shorten_error(error)}); check the network and `wandb login`.") from None


def _find_runs(runs: Path) -> Path:
    if not _list_files(runs):
        raise UserError(f"{runs}: no runs there yet; `make train` makes the first one.")
    return runs


def _find_folders(runs: Path) -> dict[str, FoldFolder]:
    """The folder of each run by its id in W&B."""
    found = {file.parent: read_identity(file) for file in runs.rglob(RUN_FILE) if file.is_file()}
    return {identity["id"]: FoldFolder(folder) for folder, identity in found.items() if identity}


def _write_lost_run(runs: Path, fold: FoldFolder) -> None:
    """Write W&B's file, with the curves and figures, of a fold that W&B was to show and has no file of: it could not start or
    write, or was killed before its first second was over."""
    file, rows = fold.path / RUN_FILE, _collect_rows(fold)
    identity = read_identity(file)
    if identity is None or any(map(find_run, runs.glob(f"*run-*-{identity['id']}/run-*.wandb"))) or is_locked(fold.path):
        return
    if not rows:
        say(f"{fold.path}: nothing of it in {runs}, and no epochs to send; the command that made it shows it again.")
        return
    summary = fold.summary
    records = end_run(make_run(identity, PROJECT, file.stat().st_mtime), collect_figures(summary or {}), int(summary is None))
    folder = runs / f"offline-run-{time.strftime('%Y%m%d_%H%M%S')}-{identity['id']}"
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / f"run-{identity['id']}.wandb", select_missing(records, -1, rows))
    say(f"{fold.path}: nothing of it in {runs}; its curves and figures are sent, without faces and checkpoint.")


def _collect_rows(fold: FoldFolder) -> dict[int, dict[str, float]]:
    """What W&B is shown of each epoch in metrics.csv."""
    return {row["epoch"]: collect_epoch_values(row) for row in fold.read_epochs()}


def _list_parts(runs: Path) -> dict[str, list[Path]]:
    """The files to upload of each run by its id, in the order in which they were begun: those after the last one that is
    uploaded, because that one has all epochs of those before, and later figures."""
    parts: dict[str, list[Path]] = {}
    for file in _list_files(runs):
        key = file.stem.removeprefix("run-")
        parts[key] = [] if is_uploaded(file) else [*parts.get(key, []), file]
    return {key: files for key, files in parts.items() if files}


def _list_files(runs: Path) -> list[Path]:
    """The runs' files by their time, whether offline or not."""
    found = [path for path in runs.glob("*run-*/run-*.wandb") if path.is_file()]
    return sorted(found, key=lambda path: path.parent.name.removeprefix("offline-"))


def _find_stage(file: Path) -> int:
    """0 for a run that uses no other run's artifacts, else when it comes after those."""
    run = find_run(file)
    return AFTER_FOLDS.index(run.job_type) + 1 if run and run.job_type in AFTER_FOLDS else 0


def _is_growing(file: Path, folder: FoldFolder | None) -> bool:
    """Whether the run's process still writes: what it writes after the upload would be taken for sent."""
    if folder and (folder.path / ".lock").is_file():
        return is_locked(folder.path)
    try:
        return time.time() - file.stat().st_mtime < STILL_WRITTEN and not has_ended(read_records(file))
    except (OSError, ValueError):
        return True
