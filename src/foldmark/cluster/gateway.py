"""The task that Ray runs on a worker. It is sent by value, so that it can say where Foldmark is missing, or another one."""

from collections.abc import Iterator
from typing import Any


def serve(expected: dict[str, str], kind: str, content: dict[str, Any]) -> Iterator[dict]:
    """First who answers; then, where Foldmark and torch are the expected ones, the messages of a task of that kind (a row of
    cluster/worker.py). content: by name what it needs, as Ray's references, which are fetched only when they are asked for."""
    import socket

    import ray

    hello: dict[str, Any] = {"node": ray.get_runtime_context().get_node_id(), "host": socket.gethostname(), "identity": None}
    try:
        from foldmark.cluster.identity import identify

        hello["identity"] = identify()
    except ImportError:
        pass
    yield {"hello": hello}
    if hello["identity"] != expected:
        return
    from foldmark.cluster.worker import TASKS

    yield from TASKS[kind](lambda name: ray.get(content[name]) if name in content else None)
