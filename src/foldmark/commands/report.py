"""`make report`: one page with all that an experiment has to show."""

from foldmark.report.report import make_report
from foldmark.runs.experiment import Experiment, Session


def report(session: Session, experiment: Experiment, variables: dict[str, str | None]) -> None:
    """Write runs/<experiment>/report.html. variables: what the user gave make, for the commands in the page."""
    make_report(experiment, session.places, {name: value for name, value in variables.items() if value})
