"""An executor that runs jobs side by side, each in a thread that waits for what trains elsewhere."""

import logging
from collections.abc import Callable, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic

from foldmark.core.errors import UserError
from foldmark.train.executors import Job

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds, at whether more jobs fit


class Stopped(Exception):
    """The command ends, so nothing waits for this job any more."""


class SideBySide(Generic[Job]):
    """Runs as many of the jobs at a time as there is room for, in the order they were submitted.

    room: how many fit now. stopping: set when the jobs have to end.
    """

    def __init__(self, train: Callable[[Job], dict], room: Callable[[], int], stopping: Event) -> None:
        self.train, self.room, self.stopping = train, room, stopping
        self.jobs = list[Job]()
        self._threads: dict[int, Thread] = {}
        self._ended = Queue[tuple[int, Job, dict | BaseException]]()
        self._started = 0

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def results(self) -> Iterator[tuple[Job, dict]]:
        """As `Executor.results`. A UserError of one job does not keep the others from their end: it is raised after them."""
        refused: list[UserError] = []
        while self.jobs or self._threads:
            while self.jobs and len(self._threads) < max(1, self.room()):
                self._start(self.jobs.pop(0))
            try:
                number, job, outcome = self._ended.get(timeout=LOOK_EVERY)
            except Empty:
                continue
            self._threads.pop(number).join()
            if isinstance(outcome, dict):
                yield job, outcome
            elif isinstance(outcome, UserError):
                if refused or self.jobs or self._threads:
                    log.info(str(outcome))
                refused.append(outcome)
            else:
                raise outcome
        if refused:
            raise refused[0]

    def wait(self, seconds: float) -> None:
        """Wait for the jobs to end, as they do soon once `stopping` is set."""
        for thread in self._threads.values():
            thread.join(seconds)

    def _start(self, job: Job) -> None:
        number = self._started
        self._started += 1

        def work() -> None:
            outcome: dict | BaseException
            try:
                if self.stopping.is_set():
                    raise Stopped
                outcome = self.train(job)
            except BaseException as error:
                outcome = error
            self._ended.put((number, job, outcome))

        self._threads[number] = Thread(target=work, daemon=True)
        self._threads[number].start()
