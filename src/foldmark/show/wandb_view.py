"""Which runs W&B's terminal dashboard opens with: it keeps that in a file beside the runs, and adds the latest run."""

import json
from collections.abc import Sequence
from pathlib import Path

from foldmark.core.files import read_kept, write_text

VIEW_FILE = ".wandb-leet.json"


def show_first(runs: Path, selected: Sequence[Path], latest: Path) -> None:
    """Have the dashboard over `runs` open with these of its folders selected, unless the latest one was there when it was last
    open: then it opens as it was left."""
    view = read_kept(runs / VIEW_FILE, lambda content: dict(json.loads(content)), "it is written anew") or {}
    if view.get("latest_run") != latest.name:
        view |= {"selected_runs": [folder.name for folder in selected], "latest_run": latest.name}
        view.pop("pinned_run", None)
        write_text(runs / VIEW_FILE, json.dumps(view, indent=1) + "\n")
