"""Jobs side by side: as many as there is room for, an error keeps no other from its end, and a stop ends them all."""

from threading import Event

import pytest

from foldmark.cluster.side_by_side import SideBySide, Stopped
from foldmark.core.errors import UserError


def test_no_more_jobs_run_than_there_is_room_for_and_later_ones_join():
    running, most, stopping = [], [], Event()

    def train(job: int) -> dict:
        running.append(job)
        most.append(len(running))
        stopping.wait(0.05)
        running.remove(job)
        return {"job": job}

    executor = SideBySide(train, lambda: 2, stopping)
    for job in range(4):
        executor.submit(job)
    done = set()
    for job, summary in executor.results():
        assert summary == {"job": job}
        done.add(job)
        if job == 0:
            executor.submit(9)
    assert done == {0, 1, 2, 3, 9}
    assert max(most) == 2


def test_the_others_end_before_a_refusal_is_raised():
    def train(job: int) -> dict:
        if job == 1:
            raise UserError("job 1: a sentence.")
        return {}

    executor = SideBySide(train, lambda: 1, Event())
    for job in range(3):
        executor.submit(job)
    done = []

    def collect() -> None:
        for job, _ in executor.results():
            done.append(job)

    with pytest.raises(UserError, match="job 1"):
        collect()
    assert done == [0, 2]


def test_a_bug_is_raised_at_once():
    def train(job: int) -> dict:
        raise ZeroDivisionError

    executor = SideBySide(train, lambda: 1, Event())
    executor.submit(0)
    executor.submit(1)
    with pytest.raises(ZeroDivisionError):
        list(executor.results())
    assert executor.jobs == [1]


def test_a_stop_ends_what_waits():
    stopping = Event()

    def train(job: int) -> dict:
        stopping.wait(60)
        raise Stopped

    executor = SideBySide(train, lambda: 2, stopping)
    executor.submit(0)
    results = executor.results()
    stopping.set()
    with pytest.raises(Stopped):
        next(results)
    executor.wait(5)
