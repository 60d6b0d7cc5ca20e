"""Finished folds, checked before anything is built on them."""

import logging

import pandas

from foldmark.core.files import write_text
from foldmark.models.checkpoint import load_latest_checkpoint
from foldmark.runs.binding import check_finished, describe_fold, is_unchanged
from foldmark.runs.run import Run
from foldmark.runs.run_folder import FoldFolder

log = logging.getLogger(__name__)


def check_finished_folds(run: Run) -> None:
    """Check the files of every finished fold of a run, and write again the metrics.csv that its checkpoint holds where that is
    lost. Raises UserError for files that are missing, replaced, or of another config, split or data set."""
    for fold in run.folder.finished:
        check_finished(fold, describe_fold(run.config, run.faces, run.folds, fold.number))
        if not is_unchanged(fold.metrics_file, fold.require_summary()):
            history = (load_latest_checkpoint(fold) or {}).get("history", [])
            write_metrics(fold, history)
            log.info(f"{fold.metrics_file}: not there or damaged, so written again from {fold.checkpoint.name}.")


def write_metrics(fold: FoldFolder, history: list[dict]) -> None:
    """The rows of an epoch each as metrics.csv."""
    write_text(fold.metrics_file, pandas.DataFrame(history).to_csv(index=False))
