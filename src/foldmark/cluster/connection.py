"""Ray, started on this machine for one command or joined where it runs, and left as it was found."""

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foldmark.cluster.scratch import own_temporary_folder, scratch_folder
from foldmark.core.errors import UserError

# Ray makes sockets below its folder, and a socket's path has at most 107 characters.
LONGEST_FOLDER = 30
ANSWER_LIMIT = 10  # seconds
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # uv would ship the working folder to all workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Its own words on lost nodes fill a page of the terminal; we say what becomes of the folds.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}


def require_ray() -> Any:
    """Ray's module. Raises UserError where it is not installed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError(
            "WORKERS, CLUSTER: Ray is not installed; `make train` and `make tune` install it where one of them is set, elsewhere "
            "`pip install 'ray>=2.60'` does, or leave both out."
        ) from None
    return ray


@contextmanager
def start_ray(cores: int, gpus: int) -> Iterator[Path]:
    """Run Ray on this machine with so much of it; the folder that it and its workers use, which is removed at the end."""
    place = tempfile.gettempdir()
    _set_token()
    ray = require_ray()
    base = own_temporary_folder(place if len(place) <= LONGEST_FOLDER else "/tmp")
    with scratch_folder(base, "ray") as folder:
        try:
            # The system stops Ray with the thread that started it, so with the command, however that ends.
            ray.init(
                address="local", num_cpus=cores, num_gpus=gpus, include_dashboard=False, _temp_dir=str(folder / "ray"), **QUIET
            )
            yield folder
        finally:
            ray.shutdown()


def _set_token() -> None:
    """Make a token that this command's own Ray demands. Its ports are open on all interfaces, and it runs what it is sent."""
    # Ray reads them when it is imported.
    if "ray" not in sys.modules and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def join_ray(address: str) -> Iterator[None]:
    """Join the Ray cluster at this address, or with auto the one that runs on this machine. Raises UserError where there is
    none, or one that this Ray does not fit."""
    ray = require_ray()
    start = (
        "start one with `ray start --head`, join it on this machine with `ray start --address=HEAD:6379`, or leave CLUSTER out"
    )
    if address.startswith("ray://"):
        raise UserError(f"CLUSTER={address}: run Foldmark on a machine of the cluster, with CLUSTER=auto.")
    if address != "auto" and not _answers(address):
        raise UserError(f"CLUSTER={address}: no Ray cluster answers there; {start}.")
    try:
        ray.init(address=address, **QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        token = "where it demands a token, set its RAY_AUTH_MODE and RAY_AUTH_TOKEN here, too; else"
        raise UserError(f"CLUSTER={address}: no Ray cluster can be joined ({reason}); {token} {start}.") from None
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError):
        socket.create_connection((host, int(port)), timeout=ANSWER_LIMIT).close()
        return True
    return False
