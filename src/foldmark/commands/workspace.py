"""A page in W&B over the uploaded runs: fold curves with mean and band, worst faces, variants side by side."""

from typing import TYPE_CHECKING, Any

from foldmark.commands.wandb_runs import require_login
from foldmark.core.errors import UserError
from foldmark.core.metrics import HEADLINE_METRICS, TABLE_METRICS
from foldmark.report.wandb import KEYS
from foldmark.show.terminal import say_made
from foldmark.show.tracker import PROJECT
from foldmark.show.wandb_calls import UPLOAD_LIMIT, call_with_limit, shorten_error

# W&B's library for this is an extra; only `make workspace` has a use for it.
if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "Foldmark: folds, faces, variants"
CURVES = {
    **{KEYS[key]: f"{metric.axis} of the held-out faces" for key, metric in HEADLINE_METRICS.items()},
    KEYS["train_mae_px"]: "MAE (px) in training",
    KEYS["loss"]: "loss",
    KEYS["lr"]: "learning rate",
    KEYS["faces_per_second"]: "faces per second",
    KEYS["memory_mb"]: "peak memory (MB)",
}
# The metrics that variants are compared by; lower is better.
FIGURES = {
    **{f"oof_{key}": metric.axis for key, metric in TABLE_METRICS.items()},
    "seconds": "seconds of training",
    "parameters": "parameters",
}


def save_workspace() -> None:
    """Save the page in the user's project. Raises UserError without the library, a login or an answer from the server."""
    _require_library()
    page = workspace(require_login())
    try:
        call_with_limit(UPLOAD_LIMIT, page.save)
    except Exception as error:
        raise UserError(f"W&B: the workspace was not saved ({shorten_error(error)}); make sync first, then this again.") from None
    say_made(f"{NAME}, {page.url}", "open that page")


def workspace(entity: str) -> "Workspace":
    """The page for the project of this W&B user or team, not saved yet. Raises UserError without the library."""
    _require_library()
    from wandb_workspaces import expr
    from wandb_workspaces import workspaces as pages
    from wandb_workspaces.reports import v2 as panels

    folds: dict[str, Any] = {"groupby": "Group", "groupby_aggfunc": "mean"}
    return pages.Workspace(
        entity=entity,
        project=PROJECT,
        name=NAME,
        sections=[
            pages.Section(
                name="Folds: mean and band of each experiment",
                is_open=True,
                panels=[
                    panels.LinePlot(
                        x=KEYS["epoch"],
                        y=[key],
                        title=title,
                        groupby_rangefunc="stddev",
                        log_y=key == KEYS["loss"],
                        **folds,
                    )
                    for key, title in CURVES.items()
                ],
            ),
            pages.Section(
                name="Variants: out-of-fold figures, mean over the folds",
                is_open=True,
                panels=[
                    # By the runs table's own groups, which keep folds and ensembles apart.
                    *(panels.BarPlot(metrics=[key], title=title, groupby_aggfunc="mean") for key, title in FIGURES.items()),
                    panels.RunComparer(diff_only="split"),
                ],
            ),
            pages.Section(
                name="Faces: the worst first, and the same ones while it trained",
                is_open=True,
                layout_settings=pages.SectionLayoutSettings(columns=1, rows=2),
                panels=[
                    panels.WeavePanelSummaryTable(table_name="oof_faces"),
                    panels.MediaBrowser(media_keys=["held_out_faces"], num_columns=4),
                ],
            ),
            pages.Section(
                name="Errors: distribution, regions, uncertainty",
                panels=[
                    panels.WeavePanelSummaryTable(table_name="oof_cumulative_error_table"),
                    panels.WeavePanelSummaryTable(table_name="oof_error_per_region_table"),
                    panels.MediaBrowser(media_keys=["oof_reliability"]),
                ],
            ),
        ],
        runset_settings=pages.RunsetSettings(
            groupby=[expr.Metric("Group"), expr.Metric("JobType")],
            order=[expr.Ordering(expr.Summary("oof_nme"), ascending=True)],
            pinned_columns=[f"summary:{key}" for key in FIGURES],
        ),
    )


def _require_library() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise UserError("W&B's workspace library is not installed; `make workspace` installs it and saves the page.") from None
