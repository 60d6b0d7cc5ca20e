"""The study: which values each trial tries and when it is given up, by Optuna, kept in an SQLite file.

Values are sampled by a tree-structured Parzen estimator (TPE, Bergstra et al. 2011). Trials are given up by asynchronous
successive halving (ASHA, Li et al. 2020): after a ninth and a third of a fold's epochs, and so on in further folds, a trial goes
on where it is among the best third that came so far. Hyperband would divide the trials among several such rules, each with
samples of its own; a search here has tens of trials, too few for that. Optuna's own pruner of this kind notes that it has looked
at a trial before the trial ends, so a kill between the two would change the search; here the rule follows from the reports alone.

The file is written before a trial is trained and after each of its epochs, so a killed search goes on with the trials that it had
begun. What is sampled depends on seed, trial, key and the trials that ended, not on what this process did before.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from foldmark.core.errors import UserError
from foldmark.tune.search_file import Range
from foldmark.tune.space import Key, Space

BASE = 0  # the trial of the base config
STARTUP = 6  # trials that are random, before there is anything to learn from
REDUCTION, RUNGS = 3, 20  # one trial of so many goes on, at most so often
FEWEST = 4  # finished trials that importance is computed of

Outcome = Literal["running", "finished", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial: its values by key, how it ended and, where it did, why and after how many seconds. nme: out of fold, in percent;
    curve: the held-out NME of each step."""

    number: int
    values: dict[str, Any]
    outcome: Outcome = "running"
    nme: float | None = None
    curve: dict[int, float] | None = None
    reason: str = ""
    seconds: float = 0.0
    began: float = 0.0  # seconds since 1970


def require_optuna() -> Any:
    """Optuna's module. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "tune: Optuna is not installed; `make tune` installs it, elsewhere `pip install 'optuna>=4.2'` does."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Study:
    """The trials of a search; its methods may be called from several threads.

    epochs: of a fold. side_by_side: whether several trials run at a time.
    """

    def __init__(self, path: Path, space: Space, seed: int, epochs: int, *, side_by_side: bool = False) -> None:
        self.optuna, self.path, self.space, self.seed, self.side_by_side = require_optuna(), path, space, seed, side_by_side
        self._lock, self._open = Lock(), dict[int, Any]()
        first = max(1, epochs // REDUCTION**2)
        self._rungs = {first * REDUCTION**rung for rung in range(RUNGS)}
        with self._use():
            self._study = self.optuna.create_study(
                storage=self.optuna.storages.RDBStorage(f"sqlite:///{path}"),
                study_name="search",
                load_if_exists=True,
                pruner=self.optuna.pruners.NopPruner(),
            )
            if not self._stored():
                self._study.enqueue_trial({key.name: key.store(key.base) for key in space.keys})

    def resume(self) -> list[Trial]:
        """The trials that a killed search had begun, to be trained on."""
        with self._use():
            running = [trial for trial in self._stored() if trial.state == self.optuna.trial.TrialState.RUNNING]
            return [self._take(self.optuna.trial.Trial(self._study, trial._trial_id)) for trial in running]

    def ask(self) -> Trial:
        """A new trial to train; the first one is the base config."""
        with self._use():
            return self._take(self._study.ask())

    def report(self, number: int, step: int, nme: float) -> bool:
        """Note the held-out NME of a running trial at a step; whether to give the trial up. The base is never given up, because
        the others are compared with it."""
        with self._use():
            curves = {trial.number: trial.intermediate_values for trial in self._stored()}
            # A trial that goes on after a kill does some epochs again.
            if step not in curves[number]:
                self._open[number].report(nme, step)
            others = [curve[step] for other, curve in curves.items() if other != number and step in curve]
        if number == BASE or step not in self._rungs:
            return False
        # As long as fewer than three came so far, the best one goes on.
        ranked = sorted([*others, nme])
        return nme > ranked[max(1, len(ranked) // REDUCTION) - 1]

    def tell(self, number: int, outcome: Outcome, *, nme: float | None = None, reason: str = "", seconds: float = 0) -> None:
        """A running trial ended."""
        states = self.optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome]
        with self._use():
            trial = self._open.pop(number)
            trial.set_user_attr("reason", reason)
            trial.set_user_attr("seconds", seconds)
            self._study.tell(number, nme, state)

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, by number."""
        states = self.optuna.trial.TrialState
        names: dict[Any, Outcome] = {states.COMPLETE: "finished", states.PRUNED: "pruned", states.FAIL: "failed"}
        with self._use():
            stored = [trial for trial in self._stored() if trial.state != states.WAITING]
        return [
            Trial(
                trial.number,
                {key.name: key.read(trial.params[key.name]) for key in self.space.keys if key.name in trial.params},
                names.get(trial.state, "running"),
                trial.value if trial.state == states.COMPLETE else None,
                dict(trial.intermediate_values),
                trial.user_attrs.get("reason", ""),
                trial.user_attrs.get("seconds", 0.0),
                trial.datetime_start.timestamp(),
            )
            for trial in stored
        ]

    @property
    def best(self) -> Trial | None:
        """The finished trial of the lowest OOF NME."""
        finished = [trial for trial in self.trials if trial.nme is not None]
        return min(finished, key=lambda trial: (trial.nme, trial.number), default=None)

    @property
    def seconds(self) -> float:
        """How long was searched, in all processes together."""
        with self._use():
            return self._study.user_attrs.get("seconds", 0.0)

    def add_seconds(self, seconds: float) -> None:
        before = self.seconds
        with self._use():
            self._study.set_user_attr("seconds", before + seconds)

    def compute_importances(self) -> dict[str, float]:
        """The share of each key in the variance of the OOF NME over the space, from the finished trials (fANOVA, Hutter et al.
        2014), the largest first; empty for too few of them."""
        finished = [trial for trial in self.trials if trial.nme is not None]
        if len(finished) < FEWEST or len({trial.nme for trial in finished}) < 2:
            return {}
        with self._use():
            evaluator = self.optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
            return dict(self.optuna.importance.get_param_importances(self._study, evaluator=evaluator))

    def _stored(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _take(self, trial: Any) -> Trial:
        """Sample the values of a trial that it does not have yet."""
        self._open[trial.number] = trial
        values = {}
        for index, key in enumerate(self.space.keys):
            self._study.sampler = self._make_sampler([self.seed, trial.number, index])
            values[key.name] = key.read(_suggest(trial, key))
        return Trial(trial.number, values)

    def _make_sampler(self, seed: list[int]) -> Any:
        return self.optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
            n_startup_trials=STARTUP,
            # Key by key, so that one that was not sampled before a kill is sampled as it would have been.
            multivariate=False,
            constant_liar=self.side_by_side,
        )

    @contextmanager
    def _use(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except (SQLAlchemyError, self.optuna.exceptions.StorageInternalError) as error:
                reason = " ".join(str(error.__cause__ or error).split())[:120]
                raise UserError(
                    f"{self.path}: cannot be used ({reason}); make room on the disk, or remove {self.path.parent} and search "
                    "again."
                ) from None


def _suggest(trial: Any, key: Key) -> Any:
    values = key.values
    if not isinstance(values, Range):
        return trial.suggest_categorical(key.name, values)
    if key.whole:
        return trial.suggest_int(key.name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(key.name, values.low, values.high, log=values.log)
