"""How a lower package reports progress, without knowing who shows it: sentences by `logging`, counts by a Progress.

A function that takes long takes `progress: Progress = no_progress` and counts like this:

    with progress("unpacking", len(entries)) as done:
        for count, entry in enumerate(entries, 1):
            ...
            done(count)
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Done = Callable[[int], None]


class Progress(Protocol):
    """Opens a count of `what` up to `total` (None: unknown); the function it gives takes how many are done. in_bytes: of bytes,
    from `start` on, because a download may resume."""

    def __call__(
        self, what: str, total: int | None, *, start: int = 0, in_bytes: bool = False
    ) -> AbstractContextManager[Done]: ...


def no_progress(what: str, total: int | None, *, start: int = 0, in_bytes: bool = False) -> AbstractContextManager[Done]:
    """Shows nothing."""
    return nullcontext(lambda done: None)
