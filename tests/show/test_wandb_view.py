"""Which runs W&B's terminal dashboard opens with."""

import json

from foldmark.show.wandb_view import VIEW_FILE, show_first


def test_the_dashboard_opens_with_the_given_runs_until_the_user_has_seen_the_latest(tmp_path):
    def read_selected() -> list[str]:
        return json.loads((tmp_path / VIEW_FILE).read_text())["selected_runs"]

    fold0, fold1, submit = (tmp_path / name for name in ("run-f0", "run-f1", "run-submit"))
    show_first(tmp_path, [fold0, fold1], submit)
    assert read_selected() == ["run-f0", "run-f1"]
    view = json.loads((tmp_path / VIEW_FILE).read_text())
    (tmp_path / VIEW_FILE).write_text(json.dumps(view | {"selected_runs": ["run-submit"], "runs_filter": {"query": "f"}}))
    show_first(tmp_path, [fold0, fold1], submit)
    assert read_selected() == ["run-submit"]
    show_first(tmp_path, [fold0], fold0)
    assert read_selected() == ["run-f0"]
    assert json.loads((tmp_path / VIEW_FILE).read_text())["runs_filter"] == {"query": "f"}
    (tmp_path / VIEW_FILE).write_bytes(b"[1")
    show_first(tmp_path, [fold1], submit)
    assert read_selected() == ["run-f1"]
