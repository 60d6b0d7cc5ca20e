"""Foldmark's command line for tests: in the test's own process, which imports torch once, or as a process of its own where
that is the point (kills, Ctrl-C, imports, memory, two at once)."""

import atexit
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from foldmark.cli import main

SOURCE = Path(__file__).parent.parent / "src"
PROCESSES = multiprocessing.get_context("forkserver")
COMMANDS = [f"foldmark.commands.{name}" for name in ("train", "submission", "experiments", "wandb_runs")]
PROCESSES.set_forkserver_preload([*COMMANDS, "wandb.apis.public"])
COMMAND = [sys.executable, "-c", "from foldmark.cli import main; main()"]
# Several commands in one process, for `run_code`: RUN_COMMANDS, "train csv", "--name", "a"
RUN_COMMANDS = """
import sys
from foldmark.cli import main
commands, *options = sys.argv[1:]
for command in commands.split():
    sys.argv = ["foldmark", command, *options]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a Foldmark process: W&B off, no option of whoever runs the tests, and the code beside these tests
    whatever is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FOLDMARK_")}
    return {**kept, "WANDB_MODE": "disabled", "PYTHONPATH": str(SOURCE), **changes}


def run_process(folder: Path, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `foldmark ...` in a folder as a process of its own, with these environment variables."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=300)


def start_process(folder: Path, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start `foldmark ...` in a folder as a process of its own, to be killed or waited for."""
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=folder, env=environment(), text=True, **options)


def run_in_process(folder: Path, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `foldmark ...` in a folder within this process, and leave the process as it was. A bug raises here, where a process
    would end with a traceback and exit code 1."""
    command = ["foldmark", *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _put_back(), _written_to(1, "stdout", out), _written_to(2, "stderr", err):
            _set_environment(environment(**changes))
            os.chdir(folder)
            sys.argv = command
            code = _exit_code()
        return subprocess.CompletedProcess(command, code, _text(out), _text(err))


def fork_process(folder: Path, said: Path, *arguments: object, **changes: str) -> multiprocessing.process.BaseProcess:
    """Start `foldmark ...` in a folder as a process of its own, at once: forked from one that has imported torch already. What it
    prints goes into the file `said`."""
    process = PROCESSES.Process(target=become_foldmark, args=(folder, said, *arguments), kwargs=changes)
    process.start()
    return process


def become_foldmark(folder: Path, said: Path, *arguments: object, **changes: str) -> None:
    """Turn this process, which was forked for it, into `foldmark ...` in a folder; what it prints goes into the file `said`."""
    with said.open("wb") as file:
        _print_into(file.fileno(), file.fileno())
    _set_environment(environment(**changes))
    _take_media_folder()
    os.chdir(folder)
    sys.argv = ["foldmark", *map(str, arguments)]
    main()


def run_code(folder: Path, variables: Mapping[str, str], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder, with just these environment variables, as `python -c` does, but in a process that is forked
    from one that has imported torch and W&B already."""
    with tempfile.TemporaryDirectory() as said:
        files = Path(said) / "out", Path(said) / "err"
        process = PROCESSES.Process(target=become_code, args=(folder, dict(variables), files, code, arguments))
        process.start()
        process.join(200)
        if process.is_alive():
            process.kill()
            process.join()
        return subprocess.CompletedProcess(code, process.exitcode, files[0].read_text(), files[1].read_text())


def become_code(folder: Path, variables: dict[str, str], said: tuple[Path, Path], code: str, arguments: tuple) -> None:
    """Turn this process, which was forked for it, into `python -c code ...` in a folder; what it prints goes into two files."""
    with said[0].open("wb") as out, said[1].open("wb") as err:
        _print_into(out.fileno(), err.fileno())
    _set_environment(variables)
    _take_media_folder()
    os.chdir(folder)
    sys.argv = ["-c", *map(str, arguments)]
    try:
        exec(code, {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # as Python does at its end; a forked process leaves them out


def _take_media_folder() -> None:
    """Give W&B in this process a folder of its own for pictures: it makes one when it is imported, and removes it at the end."""
    from wandb.sdk.data_types._private import MEDIA_TMP

    MEDIA_TMP._finalizer.detach()
    MEDIA_TMP.__init__("wandb-media")


def _print_into(out: int, err: int) -> None:
    for descriptor, file in ((1, out), (2, err)):
        os.dup2(file, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))


def _exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _text(file: tempfile._TemporaryFileWrapper) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


@contextmanager
def _written_to(descriptor: int, name: str, file: tempfile._TemporaryFileWrapper) -> Iterator[None]:
    """Send what Python, its libraries and child processes write to stdout or stderr into a file."""
    kept_stream, kept_descriptor = getattr(sys, name), os.dup(descriptor)
    kept_stream.flush()
    os.dup2(file.fileno(), descriptor)
    stream = open(descriptor, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: PTH123, SIM115
    setattr(sys, name, stream)
    try:
        yield
    finally:
        stream.flush()
        setattr(sys, name, kept_stream)
        os.dup2(kept_descriptor, descriptor)
        os.close(kept_descriptor)


@contextmanager
def _put_back() -> Iterator[None]:
    """Put back what would end with a process: folder, environment, arguments, random states, and loggers."""
    folder, variables, arguments, hook = Path.cwd(), os.environ.copy(), sys.argv, sys.excepthook
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    torch_state = torch and (torch.get_rng_state(), torch.get_num_threads())
    log = logging.getLogger("foldmark")
    logged = log.handlers[:], log.level, log.propagate
    try:
        yield
    finally:
        os.chdir(folder)
        _set_environment(variables)
        sys.argv, sys.excepthook = arguments, hook
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch_state:
            torch.set_rng_state(torch_state[0])
            torch.set_num_threads(torch_state[1])
        log.handlers[:], log.level, log.propagate = logged


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)
