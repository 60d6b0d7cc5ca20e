"""The machines of a Ray cluster: what a fold takes of one, how many folds fit, and which machines were refused."""

import logging
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from foldmark.cluster.identity import describe_identity
from foldmark.core.errors import UserError

log = logging.getLogger(__name__)

SAY_EVERY = 60.0  # seconds, what folds wait for


@dataclass(frozen=True)
class Allotment:
    """What a fold gets: a device (cpu or cuda), CPUs and GPUs as Ray counts them, and threads. workers: the most folds at a time;
    None: as many as fit."""

    device: str
    cpus: int
    gpus: float
    threads: int
    workers: int | None = None

    @property
    def resource(self) -> tuple[str, float]:
        """What the number of folds at a time depends on, and how much of it a fold takes."""
        return ("GPU", self.gpus) if self.gpus else ("CPU", self.cpus)

    @property
    def share(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)} each" if self.device == "cpu" else "a GPU each"


class Nodes:
    """The machines as `ray`, which is connected, knows them now."""

    def __init__(self, ray: Any, allotment: Allotment) -> None:
        self.ray, self.allotment = ray, allotment
        self.refused: dict[str, str] = {}  # by Ray's id, with the sentence that says why
        self._lock, self._said = Lock(), -SAY_EVERY

    def room(self) -> int:
        """How many folds fit at a time."""
        name, share = self.allotment.resource
        there = sum(int(node["Resources"].get(name, 0) / share + 1e-6) for node in self._fit())
        return there if self.allotment.workers is None else min(self.allotment.workers, max(there, 1))

    def refuse(self, hello: dict, identity: dict[str, str]) -> None:
        """Give no more tasks to the machine that said hello with another identity."""
        sentence = (
            f"{hello['host']} has {describe_identity(hello['identity'])}, this machine {describe_identity(identity)}; "
            "a fold may not change between them, so install the same there"
        )
        with self._lock:
            is_new = hello["node"] not in self.refused
            self.refused[hello["node"]] = sentence
        if is_new:
            log.warning(f"{sentence}. It gets no folds.")

    def options(self) -> dict[str, Any]:
        """Ray's options of a task that gets its allotment of a machine that is fit. Raises UserError where all were refused."""
        name, _ = self.allotment.resource
        if self.refused and not any(node["Resources"].get(name) for node in self._fit()):
            raise UserError(f"CLUSTER: {next(iter(self.refused.values()))}; no other machine is left.")
        options: dict[str, Any] = {"num_cpus": self.allotment.cpus, "num_gpus": self.allotment.gpus}
        if self.refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.refused)})"}
        return options

    def say_waiting(self) -> None:
        """Say now and then what folds wait for."""
        with self._lock:
            if time.monotonic() - self._said < SAY_EVERY:
                return
            self._said = time.monotonic()
        name, share = self.allotment.resource
        total, free = (one.get(name, 0) for one in (self.ray.cluster_resources(), self.ray.available_resources()))
        log.info(f"waits for {share:g} {name}: the cluster has {total:g}, of which {free:g} are free.")

    def explain_loss(self, error: Exception) -> str:
        """What happened to a worker, in a few words."""
        exceptions = self.ray.exceptions
        if isinstance(error, exceptions.OutOfMemoryError):
            return "its worker used more memory than the machine has, and was ended"
        if isinstance(error, exceptions.NodeDiedError | exceptions.ObjectLostError | exceptions.LocalRayletDiedError):
            return "its machine is gone"
        return "its worker was ended"

    def _fit(self) -> list[dict]:
        return [node for node in self.ray.nodes() if node["Alive"] and node["NodeID"] not in self.refused]
