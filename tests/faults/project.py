"""A small project in which every cheap command has run, and what must hold after any command in it: see test_files.py."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas
import torch

import foldmark
from foldmark.core.errors import UserError
from foldmark.data.ibug import IBUG_FOLDER
from tests.commandline import run_in_process

TINY = (
    "model: {name: cnn, head: pool, channels: [8, 16], hidden: 32}\ncrop: {size: 32}\n"
    "train: {epochs: 1, batch: 8, lr: %s}\nfolds: {count: 2}\n"
)
A, B, BLEND = "a-synthetic", "b-synthetic", "ab-synthetic"
PICTURE = f"{IBUG_FOLDER}/synthetic/testset/00000.jpg"
LIMIT = 60  # seconds for a command that takes one: what takes longer hangs

# What is measured or noted anew whenever a file is made again.
TIMES = {"made", "seconds", "faces_per_second", "memory_mb", "minutes", "steps_per_second", "replaces", "files"}


@dataclass(frozen=True)
class Done:
    """How a command ended; a traceback if it was a bug."""

    code: int
    out: str
    err: str
    bug: str = ""


@dataclass(frozen=True)
class Project:
    folder: Path
    data: Path

    def command(self, name: str) -> Done:
        """Run a command of COMMANDS in the project."""
        run = COMMANDS[name]
        try:
            with _time_limit():
                done = run(self) if callable(run) else self.run_foldmark(run)
        except Exception:  # noqa: BLE001  whatever a damaged file leads to
            return Done(1, "", "", traceback.format_exc(limit=-6))
        return Done(done.returncode, done.stdout, done.stderr)

    def run_foldmark(self, text: str) -> subprocess.CompletedProcess[str]:
        return run_in_process(self.folder, *self.words(text))

    def words(self, text: str) -> list[str]:
        """The command's words; @ is the folder with the data."""
        return [str(self.data / word[1:]) if word[0] == "@" else word for word in text.split()]

    def files(self) -> list[Path]:
        """All files that commands wrote, as paths in the project; configs are the user's own."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path.parent.name != "configs")
        return sorted(path.relative_to(self.folder) for path in found)


def _load(project: Project) -> subprocess.CompletedProcess[str]:
    """`foldmark.load` of one experiment and of the blend, and what they predict."""
    picture, said = project.data / PICTURE, []
    try:
        for name in (A, BLEND):
            predictor = foldmark.load(project.folder / "runs" / name, device="cpu")
            points_px, std_px = predictor.predict(picture, boxes=[(40, 40, 90, 90)])
            said.append(f"NME of load {hashlib.sha256(points_px.tobytes() + std_px.tobytes()).hexdigest()}")
    except UserError as error:
        return subprocess.CompletedProcess([], 2, "\n".join(said), f"foldmark: {error}\n")
    return subprocess.CompletedProcess([], 0, "\n".join(said), "")


_ALL = "--data-root @ --device cpu"


def _after(removed: str, text: str) -> Callable[[Project], subprocess.CompletedProcess[str]]:
    """The command, after a file was removed, so that it is made again from others."""

    def run(project: Project) -> subprocess.CompletedProcess[str]:
        path = project.folder / removed
        if path.is_file() and not path.is_symlink():
            path.unlink()
        return project.run_foldmark(text)

    return run


# In an order in which each finds what it needs; test_files.py compares their names with those of the command line.
COMMANDS: dict[str, str | Callable[[Project], subprocess.CompletedProcess[str]]] = {
    "check": "check --config a --data-root @",
    "train": f"train --config a {_ALL}",
    "train blend": f"train --config ab {_ALL}",
    "train again": _after(f"runs/{A}/fold1/summary.json", f"train --config a {_ALL}"),
    "csv": f"csv --config a {_ALL}",
    "csv blend": f"csv --config ab {_ALL}",
    "csv again": _after(f"submissions/{A}.csv", f"csv --config a {_ALL}"),
    "submit": f"submit --config a {_ALL}",
    "verify": f"verify submissions/{A}.csv {_ALL}",
    "score": f"score submissions/{A}.csv 7.5",
    "ledger": "ledger",
    "checkcsv": f"checkcsv submissions/{A}.csv --config a --data-root @",
    "compare": f"compare --config a {_ALL}",
    "predict": f"predict @{PICTURE} --box 40,40,90,90 --run {A} --draw {_ALL}",
    "load": _load,
    "report": "report --config a --data-root @",
}


def figure_lines(text: str) -> set[str]:
    lines = (re.sub(r"\d+ faces/s.*", "", " ".join(line.split())) for line in text.splitlines())
    return {line for line in lines if "NME" in line}


def report_lines(folder: Path) -> set[str]:
    """The lines of the report that hold figures, without pictures and dates."""
    page = re.sub(r"data:[^\"')]*", "", (folder / f"runs/{A}/report.html").read_text())
    lines = re.split(r"[\n>]", page)
    return {line.strip() for line in lines if re.search(r"\d\.\d+ ?%|NME", line) and "make compare on" not in line}


def same_content(path: Path, was: bytes, now: bytes) -> bool:
    """Whether a file that was made again says the same: other times, and other bytes of the same arrays, are no difference."""
    if was == now:
        return True
    try:
        read = READERS.get(path.suffix)
        return bool(now) if read is None else read(was) == read(now)
    except Exception:  # noqa: BLE001  damaged
        return False


def _read_json(content: bytes) -> object:
    def without_times(tree: object) -> object:
        if isinstance(tree, dict):
            return {key: without_times(value) for key, value in tree.items() if key not in TIMES}
        return [without_times(value) for value in tree] if isinstance(tree, list) else tree

    return without_times(json.loads(content))


def _read_csv(content: bytes) -> str:
    table = pandas.read_csv(BytesIO(content), dtype=str)
    return table.drop(columns=[column for column in table if column in TIMES]).to_csv()


def _read_npz(content: bytes) -> list[tuple[str, bytes]]:
    with np.load(BytesIO(content)) as stored:
        return [(name, stored[name].tobytes()) for name in sorted(stored.files)]


def _read_tensors(content: bytes) -> str:
    state = torch.load(BytesIO(content), weights_only=True)
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in state["history"]]
    return repr([{name: tensor.tolist() for name, tensor in state["averaged"].items()}, rows, state["binding"]])


READERS: dict[str, Callable[[bytes], object]] = {
    ".json": _read_json,
    ".csv": _read_csv,
    ".npz": _read_npz,
    ".pt": _read_tensors,
    ".u8": bytes,
    ".yaml": bytes,
}


class Hangs(BaseException):
    """A command that does not end; no Exception, so that no reader takes it for a damaged file."""


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hangs(f"still not ended after {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    except Hangs as problem:
        raise RuntimeError(str(problem)) from problem
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Snapshot:
    """The bytes of all files of a project, to compare with and to put back."""

    project: Project
    content: dict[Path, bytes]

    @classmethod
    def take(cls, project: Project) -> "Snapshot":
        return cls(project, {path: (project.folder / path).read_bytes() for path in project.files()})

    def put_back(self) -> None:
        """Make the project as it was."""
        folder = self.project.folder
        for path in sorted(folder.rglob("*"), reverse=True):
            known = path.relative_to(folder) in self.content or path.parent.name == "configs"
            if path.is_symlink() or not (path.is_dir() or (path.is_file() and known)):
                path.unlink()
            elif path.is_dir() and (known or not any(path.iterdir())):
                path.rmdir()
        for path, was in self.content.items():
            there = folder / path
            if not there.is_file() or there.read_bytes() != was:
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(was)


@dataclass(frozen=True)
class Whole:
    """The undamaged project, the lines with figures that it prints, and which commands open each file."""

    project: Project
    snapshot: Snapshot
    lines: set[str]
    openers: dict[Path, list[str]]


def make_whole(folder: Path, data: Path) -> Whole:
    """The project with all that its commands write. Each command is run twice: first it makes files, then it finds them."""
    (folder / "configs").mkdir(parents=True)
    for name, rate in (("a", "1.0e-4"), ("b", "1.0e-3")):
        (folder / f"configs/{name}.yaml").write_text(TINY % rate)
    (folder / "configs/ab.yaml").write_text("blend: [a, b]\n")
    project, lines = Project(folder, data), set()
    opened: dict[str, set[Path]] = {}
    for _ in range(2):
        for name in COMMANDS:
            _OPENED.clear()
            done = project.command(name)
            opened[name] = {Path(path) if path[0] == "/" else folder / path for path in _OPENED if path}
            assert (done.code, done.bug) == (0, ""), f"{name}: {done.bug}{done.out}{done.err}"
            lines |= figure_lines(done.out)
    lines |= report_lines(folder)
    openers = {path: [name for name in COMMANDS if folder / path in opened[name]] for path in project.files()}
    return Whole(project, Snapshot.take(project), lines, openers)


# Files that this process has opened. Such a hook cannot be taken away again.
_OPENED: set[str] = set()
sys.addaudithook(lambda event, given: _OPENED.add(given[0]) if event == "open" and isinstance(given[0], str) else None)
