"""Where trainings run, and in which order: an engine trains a fold; its executor is given jobs, such as folds, and gives their
summaries back."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import torch

from foldmark.models.device import Speed
from foldmark.runs.run import Run
from foldmark.train.fold_data import FoldData
from foldmark.train.listener import Listener
from foldmark.train.loop import train_fold
from foldmark.train.state import choose_speed

Job = TypeVar("Job")


class Executor(Protocol[Job]):
    """The two methods that a command needs, however and wherever the jobs run."""

    def submit(self, job: Job) -> None:
        """Take a job; also one that the end of another makes possible."""

    def results(self) -> Iterator[tuple[Job, dict]]:
        """Each job with the summary that it ended with, as they finish. A job's error is raised here."""


class InOrder(Generic[Job]):
    """Runs the jobs in this process, one after the other, in the order they were submitted."""

    def __init__(self, train: Callable[[Job], dict]) -> None:
        self.train, self.jobs = train, list[Job]()

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def results(self) -> Iterator[tuple[Job, dict]]:
        while self.jobs:
            job = self.jobs.pop(0)
            yield job, self.train(job)


class Engine(Protocol):
    """Trains folds somewhere.

    device: of this process, for what is computed here. side_by_side: whether jobs of several runs may run at the same time.
    """

    device: torch.device
    side_by_side: bool

    def describe(self) -> str:
        """Where folds are trained, in a few words."""

    def room(self) -> int:
        """How many jobs fit at a time, now."""

    def choose_speed(self, run: Run) -> Speed:
        """The way to compute of a run: see `train.state.choose_speed`."""

    def train_fold(self, run: Run, data: FoldData, listeners: Sequence[Listener]) -> dict:
        """As `train.loop.train_fold`."""

    def executor(self, train: Callable[[Job], dict]) -> Executor[Job]:
        """An executor that runs jobs by this function, which calls `train_fold`."""


class OneProcess:
    """Trains one fold after the other in this process."""

    side_by_side = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def describe(self) -> str:
        return str(self.device)

    def room(self) -> int:
        return 1

    def choose_speed(self, run: Run) -> Speed:
        return choose_speed(run, self.device)

    def train_fold(self, run: Run, data: FoldData, listeners: Sequence[Listener]) -> dict:
        return train_fold(run, data, self.device, listeners)

    def executor(self, train: Callable[[Job], dict]) -> InOrder[Job]:
        return InOrder(train)
