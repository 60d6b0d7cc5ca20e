"""The engine that trains folds on workers of Ray: each fold is a task that streams its messages to the head."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Lock
from typing import Any

import torch

from foldmark.cluster import gateway
from foldmark.cluster.connection import require_ray
from foldmark.cluster.identity import identify
from foldmark.cluster.nodes import Allotment, Nodes
from foldmark.cluster.replay import Replay
from foldmark.cluster.side_by_side import SideBySide, Stopped
from foldmark.cluster.task import FoldTask, describe_store, list_fold_files, make_run_task, pack, read_pixels
from foldmark.core.config import Config
from foldmark.core.errors import DivergedError, UserError
from foldmark.data.crops import CropStore
from foldmark.models.device import Speed
from foldmark.runs.run import Run
from foldmark.train.executors import Job
from foldmark.train.fold_data import FoldData
from foldmark.train.listener import Listener
from foldmark.train.state import choose_speed

log = logging.getLogger(__name__)

MOST_LOSSES = 3  # of workers one after the other, without any progress of their fold between
BACKPRESSURE = 3  # messages that a worker may be ahead of the head
KEPT = ("hello", "lacks", "error", "diverged", "summary")  # of a worker's messages, until its task ends
WAITS_AFTER = 10.0  # seconds
STOP_LIMIT = 90.0  # seconds for what listeners still have to do


class RayEngine:
    """Trains folds as Ray's tasks, once Ray is started or joined; a context manager, which stops those that are left.

    device: of this process. base: the folder for the scratch of workers; None: each machine's own. task: what workers run, as
    Ray's remote function; None: the gateway.
    """

    side_by_side = True

    def __init__(self, allotment: Allotment, device: torch.device, base: Path | None = None, task: Any = None) -> None:
        self.ray, self.allotment, self.device, self.base = require_ray(), allotment, device, base
        self.stopping = Event()
        self.nodes = Nodes(self.ray, allotment)
        self._lock = Lock()
        self._active: list[Any] = []  # generators
        self._sent: dict[str, Any] = {}  # what was put into the object store, by name
        self._executors: list[SideBySide] = []
        self._hardware: str | None = None
        self.ray.cloudpickle.register_pickle_by_value(gateway)
        self._task = task or self.ray.remote(gateway.serve)

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with self._lock:
            active, self._active = self._active, []
        for generator in active:
            self.ray.cancel(generator, force=True)
        for executor in self._executors:
            executor.wait(STOP_LIMIT)

    def describe(self) -> str:
        count = self.room()
        return f"{count} worker{'s' * (count != 1)} ({self.allotment.device}, {self.allotment.share})"

    def room(self) -> int:
        """How many folds fit at a time, on the machines that are there now."""
        return self.nodes.room()

    def executor(self, train: Callable[[Job], dict]) -> SideBySide[Job]:
        executor = SideBySide(train, self.room, self.stopping)
        self._executors.append(executor)
        return executor

    def choose_speed(self, run: Run) -> Speed:
        device = self.allotment.device
        if self._hardware is None:
            answer = self._answer("describe", {"settings": self.ray.put((device, self.allotment.threads))})
            if answer["problem"]:
                raise UserError(
                    f"DEVICE={device}: a worker's PyTorch cannot compute on it ({answer['problem']}); use DEVICE=cpu."
                )
            self._hardware = answer["hardware"]

        def measure(config: Config, points: int, _: torch.device, steps: int) -> Speed:
            content = pack((device, self.allotment.threads, config, points, steps))
            answer = self._answer("measure", {"measure": self.ray.put(content)})
            if "error" in answer:
                raise UserError(answer["error"])
            return Speed.model_validate_json(answer["speed"])

        return choose_speed(run, torch.device(device), measure, self._hardware)

    def train_fold(self, run: Run, data: FoldData, listeners: Sequence[Listener]) -> dict:
        """As `train.loop.train_fold`, on a worker; where that one is lost, on another one from the last state that came. Raises
        UserError where that happens again and again at the same place."""
        folder, losses = run.fold(data.fold), 0
        replay = Replay(folder, listeners)
        while True:
            reached = replay.epochs, replay.states
            try:
                return self._follow(run, data, replay)
            except self.ray.exceptions.RayTaskError:  # a bug, raised as what it was there
                raise
            except self.ray.exceptions.RayError as error:
                if self.stopping.is_set():
                    raise Stopped from None
                progress = replay.epochs > reached[0] or replay.states > reached[1]
                losses = self._count_loss(error, 0 if progress else losses, str(folder.path))
                log.info(f"{folder.path}: {self.nodes.explain_loss(error)}; it goes on from epoch {len(folder.read_epochs())}.")
                replay.place("")

    def _follow(self, run: Run, data: FoldData, replay: Replay) -> dict:
        """Train a fold on a worker from where it stands; its figures. Raises RayError where the worker is lost."""
        root, store = run.places.root, data.store
        assert isinstance(store, CropStore)
        task = FoldTask(
            data.fold,
            list_fold_files(run, data.fold, self.allotment.device),
            self.allotment.device,
            self.allotment.threads,
            head=root,
            base=self.base,
            workers=self.room(),
            data=data if run.config.train.teacher else None,
        )
        content = {"run": self._send_run(run, store), "fold": self.ray.put(pack(task))}
        if name_crops(store) in self._sent:
            content["crops"] = self._send_crops(store)
        told: dict[str, Any] = {}
        try:
            with closing(self._ask("train", content)) as messages:
                for message in messages:
                    if "device" in message:
                        replay.place(f"{told['hello']['host']} {message['device']}")
                    replay.take(message)
                    told |= {key: message[key] for key in KEPT if key in message}
        except self.ray.exceptions.RayError:
            # A worker that is lost after its last message has only its scratch folder to remove.
            if not {"summary", "error"} & set(told):
                raise
        if "error" in told:
            raise (DivergedError if told["diverged"] else UserError)(told["error"])
        if "lacks" in told:
            self._send_crops(store)
            return self._follow(run, data, replay)
        return told["summary"]

    def _answer(self, kind: str, content: dict[str, Any]) -> dict:
        """The only message of a task, whose worker may be lost a few times."""
        losses = 0
        while True:
            try:
                (answer,) = self._ask(kind, content)
                return answer
            except self.ray.exceptions.RayTaskError:
                raise
            except self.ray.exceptions.RayError as error:
                losses = self._count_loss(error, losses, f"CLUSTER: {kind}")

    def _count_loss(self, error: Exception, losses: int, what: str) -> int:
        """How many workers were lost now, one after the other by their own fault. Raises UserError where these are too many."""
        losses += not isinstance(error, self.ray.exceptions.NodeDiedError)
        if losses == MOST_LOSSES:
            raise UserError(
                f"{what}: {losses} workers were lost one after the other ({self.nodes.explain_loss(error)}); lower train.batch "
                "or WORKERS, or look into that machine's log, and run the same command again."
            ) from None
        return losses

    def _ask(self, kind: str, content: dict[str, Any]) -> Generator[dict, None, None]:
        """The messages of a task, from a node that is fit for it. Raises UserError where no node is."""
        while True:
            streaming = {"num_returns": "streaming", "max_retries": 0, "_generator_backpressure_num_objects": BACKPRESSURE}
            generator = self._task.options(**streaming, **self.nodes.options()).remote(identify(), kind, content)
            messages = self._receive(generator)
            hello = next(messages)
            if hello["hello"]["identity"] == identify():
                if kind == "train":
                    yield hello
                yield from messages
                return
            self.nodes.refuse(hello["hello"], identify())
            for _ in messages:  # there are no more
                pass

    def _receive(self, generator: Any) -> Generator[dict, None, None]:
        """The messages of a generator on a worker, which is ended where they are not taken to their end. Raises Stopped where the
        command ends."""
        with self._lock:
            self._active.append(generator)
        submitted, begun, ended = time.monotonic(), False, False
        try:
            while True:
                ready, _ = self.ray.wait([generator], timeout=1.0)
                if self.stopping.is_set():
                    raise Stopped
                if ready:
                    try:
                        reference = next(generator)
                    except StopIteration:
                        ended = True
                        return
                    begun = True
                    yield self.ray.get(reference)
                elif not begun and time.monotonic() - submitted > WAITS_AFTER:
                    self.nodes.say_waiting()
        finally:
            with self._lock:
                if generator in self._active:
                    self._active.remove(generator)
            if not ended:
                self.ray.cancel(generator, force=True)

    def _send_run(self, run: Run, store: CropStore) -> Any:
        info = self._once(f"digest of {store.file}", lambda: describe_store(store))
        return self._once(f"run {run.folder.path}", lambda: self.ray.put(pack(make_run_task(run, info))))

    def _send_crops(self, store: CropStore) -> Any:
        return self._once(name_crops(store), lambda: self.ray.put(read_pixels(store)))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._sent:
                self._sent[name] = make()
            return self._sent[name]


def name_crops(store: CropStore) -> str:
    return f"crops {store.file}"
