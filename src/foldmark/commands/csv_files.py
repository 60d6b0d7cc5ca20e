"""Output of `foldmark checkcsv`, `verify`, `score` and `ledger`, and the upload of `submit`."""

from pathlib import Path

from foldmark.commands.setup import open_data
from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256
from foldmark.data.sets import Data
from foldmark.runs.experiment import Experiment, Session
from foldmark.show.terminal import make_command, say, say_made, say_table, show_progress
from foldmark.submission.format import pick_format
from foldmark.submission.kaggle import find_obstacle, upload_submission
from foldmark.submission.ledger import SCORED_FOR_RANKS, note_score, read_ledger, table_rows


def check_csv(file: Path, experiment: Experiment) -> None:
    """Print all that is wrong with a competition file, a line each. Raises UserError if there is anything."""
    data, file_format = experiment.data, pick_format(experiment.data.set)
    findings = file_format.findings(file, data.test, experiment.config.crop)
    for finding in findings:
        say(f"{finding.defect}: {finding.sentence}")
    if findings:
        count = "1 kind of defect" if len(findings) == 1 else f"{len(findings)} kinds of defects"
        raise UserError(f"{file}: has {count}, listed above; correct each before it is uploaded.")
    say(f"{file}: no defect found: {file_format.summary(data.test)}.")


def verify_csv(session: Session, file: Path, data_root: Path) -> None:
    """Rebuild a competition file from its record, and print that it is the same. Raises UserError if it is not."""
    from foldmark.submission.rebuild import verify
    from foldmark.submission.record import read_provenance

    data = open_data(session.places, data_root, read_provenance(file).experiments[0].config.data.set)
    say(verify(file, data, session, show_progress))
    say(f"Next, once it is scored: {make_command('score', {'FILE': str(file)})} LB=<score>")


def add_score(session: Session, file: Path, lb: str | None) -> None:
    """Note the leaderboard score of a competition file in the ledger."""
    ledger = session.places.ledger
    score = note_score(file, lb or "", ledger)
    say(f"{ledger}: {file.name} scored {score:.10g}. Next: make ledger (all files, OOF figures against leaderboard scores)")


def show_ledger(session: Session) -> None:
    """Print the ledger, draw OOF figures against leaderboard scores, and print their rank correlation."""
    path = session.places.ledger
    ledger, chart = read_ledger(path), path.with_suffix(".png")
    if not ledger.rows:
        say(f"{path}: has no row yet; make csv writes a competition file and notes it.")
        return
    say_table(table_rows(ledger.rows))
    ranks = ledger.rank_correlations()
    if ranks is None:
        # An older chart would show scores that are no longer in the ledger.
        chart.unlink(missing_ok=True)
        say(
            f"{len(ledger.scored)} of {len(ledger.rows)} rows have a leaderboard score; from {SCORED_FOR_RANKS} on, they are "
            "drawn and their rank correlation is given: make score FILE=submissions/<name>.csv LB=<score>"
        )
        return
    from foldmark.show.charts import draw_ledger

    draw_ledger(chart, ledger.scored, ranks)
    say(
        f"Spearman's rank correlation with the leaderboard, over {len(ledger.scored)} files: "
        f"OOF MAE {ranks['oof_mae_px']}, OOF NME {ranks['oof_nme']}."
    )
    say_made(chart)


def upload_csv(csv: Path, data: Data, crop: CropConfig, competition: str | None, message: str) -> bool:
    """Check a competition file again and upload it; True if it was uploaded. Prints what is missing for that, if anything is.
    Raises UserError for a file with a defect and when the upload fails."""
    if not csv.is_file():
        raise UserError(f"{csv}: is not a file; move it away and run make csv.")
    sha256 = file_sha256(csv)
    pick_format(data.set).check(csv, data.test, crop)
    obstacle = (
        "it holds predictions for synthetic faces, not for the competition's."
        if data.synthetic
        else find_obstacle(csv, competition)
    )
    if obstacle or not competition:
        say(f"{csv} is checked; nothing was uploaded: {obstacle}")
        return False
    answer = upload_submission(csv, sha256, competition, message)
    say(f"{csv} was uploaded to {competition}: {answer}")
    return True
