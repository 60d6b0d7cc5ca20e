"""A finding: one class of defect of a competition file, in words."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Finding:
    """One class of defect: its name, what is wrong and where (the first place in full), and the fix."""

    defect: str
    problem: str
    fix: str

    @property
    def sentence(self) -> str:
        return f"{self.problem}; {self.fix}"


def spans(numbers: np.ndarray | list[int], most: int = 5) -> str:
    """Rising whole numbers in words, neighbours joined, the first few of them: '2 to 9, 12, 40 to 44 and 3 more places'."""
    numbers = np.asarray(numbers)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    listed = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    if len(listed) > most:
        listed = [*listed[:most], f"{len(listed) - most} more places"]
    return " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))
