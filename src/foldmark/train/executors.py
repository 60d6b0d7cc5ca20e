"""How trainings are run: an executor is given jobs, such as folds, and gives their summaries back."""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

Job = TypeVar("Job")


class Executor(Protocol[Job]):
    """The two methods that a command needs, however and wherever the jobs run."""

    def submit(self, job: Job) -> None:
        """Take a job."""

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
