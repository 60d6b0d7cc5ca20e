"""The run folder: which of its folders are folds."""

import shutil

from foldmark.runs.run_folder import RunFolder


def test_a_copy_of_a_fold_under_another_name_is_no_fold(finished, tmp_path):
    run = shutil.copytree(finished / "runs/a", tmp_path / "a")
    for name in ("fold00", "fold01", "fold\u00b2", "fold\u0663", "fold0 (copy)", "fold0-old"):
        shutil.copytree(run / "fold0", run / name)
    assert [fold.path.name for fold in RunFolder(run).finished] == ["fold0", "fold1"]
