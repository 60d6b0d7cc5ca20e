"""`make check`: the data doctor."""

from foldmark.doctor import diagnosis
from foldmark.runs.experiment import Experiment, Session


def check(session: Session, experiment: Experiment) -> bool:
    """Print what the doctor finds; True if training is safe."""
    return diagnosis.check(experiment.data, experiment.config)
