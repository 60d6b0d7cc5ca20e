"""A cluster of machines simulated by Ray on this one, each with folders of its own; its workers can be found and killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.commandline import SOURCE

WORKER = b"ray::serve"
OCCUPY = """
import sys, time
from foldmark.cluster.connection import QUIET, require_ray
ray = require_ray()
ray.init(address=sys.argv[1], **QUIET)

@ray.remote(num_cpus=1, num_returns="streaming")
def occupy():
    yield
    time.sleep(600)

kept = [occupy.options(label_selector={"ray.io/node-id": node}).remote() for node in sys.argv[2:]]
for generator in kept:
    ray.get(next(generator))
print("occupied", flush=True)
sys.stdin.readline()
"""


class Machines:
    """Machines by their names. One without CPUs is the head's own; commands join it with CLUSTER=address."""

    def __init__(self, folder: Path) -> None:
        from foldmark.cluster.connection import require_ray

        require_ray()
        from ray.cluster_utils import Cluster

        self.folder, self.nodes = folder, dict[str, Any]()
        # Ray's sockets need a short path. Memory is measured by the test that is about it.
        self.temporary = Path(tempfile.mkdtemp(prefix="foldmark-test-", dir="/tmp"))
        self._before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = str(self.temporary)
        arguments = {"num_cpus": 0, "include_dashboard": False, **self._node("head")}
        with chdir(self.home("head")):
            self.cluster = Cluster(initialize_head=True, head_node_args=arguments)

    @property
    def address(self) -> str:
        return self.cluster.address

    def home(self, name: str) -> Path:
        """The folder that a machine works in; its temporary files are in tmp/ there."""
        path = self.folder / name
        (path / "tmp").mkdir(parents=True, exist_ok=True)
        return path

    def add(self, name: str, **more: str) -> None:
        """Add a machine with one CPU, with these variables in its environment."""
        with chdir(self.home(name)):
            self.nodes[name] = self.cluster.add_node(num_cpus=1, **self._node(name, **more))

    def remove(self, name: str) -> None:
        """Take a machine away as a power failure does."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    @contextmanager
    def occupied(self, *names: str) -> Iterator[None]:
        """Machines whose CPU somebody else uses."""
        nodes = [self.nodes[name].node_id for name in names]
        command = [sys.executable, "-c", OCCUPY, self.address, *nodes]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"occupied\n"
            try:
                yield
            finally:
                process.communicate(b"\n")

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A machine that does not answer, but whose workers go on, as where a network is slow."""
        (info, *_) = self.nodes[name].all_processes["raylet"]
        os.kill(info.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(info.process.pid, signal.SIGCONT)

    def workers(self, name: str = "") -> list[int]:
        """The processes that train, or are about to: of a machine, or of all that are or were here."""
        homes = [self.folder / name] if name else self.folder.iterdir()
        folders = {str(home / "tmp") for home in homes}
        return [pid for pid in find_processes(WORKER) if read_temporary_folder(pid) in folders]

    def scratch(self) -> list[Path]:
        """What workers have left in the machines' temporary folders."""
        return [path for home in self.folder.iterdir() for path in (home / "tmp").glob("*/task-*")]

    def close(self) -> None:
        self.cluster.shutdown()
        os.environ.pop("RAY_TMPDIR")
        if self._before:
            os.environ["RAY_TMPDIR"] = self._before
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _node(self, name: str, **more: str) -> dict[str, Any]:
        memory = {"object_store_memory": 80 * 2**20}
        return {**memory, "env_vars": {"TMPDIR": str(self.home(name) / "tmp"), "PYTHONPATH": str(SOURCE), **more}}


def find_processes(title: bytes) -> list[int]:
    """The processes on this machine whose title begins so."""
    found = []
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            if path.name.isdigit() and (path / "cmdline").read_bytes().startswith(title):
                found.append(int(path.name))
    return found


def read_temporary_folder(pid: int) -> str:
    with suppress(OSError):
        for line in (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0"):
            if line.startswith(b"TMPDIR="):
                return line.partition(b"=")[2].decode()
    return ""


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(what: Callable[[], object], seconds: float = 300) -> None:
    """Wait until it is true. Fails after so many seconds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
