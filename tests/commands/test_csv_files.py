"""What `foldmark checkcsv`, `verify`, `score`, `ledger` and `submit` print, and when `submit` uploads."""

from types import SimpleNamespace

import pytest

from foldmark.commands.csv_files import upload_csv
from foldmark.core.errors import UserError
from tests.submission.test_format import CROP, faces, written  # noqa: F401
from tests.submission.test_kaggle import kaggle  # noqa: F401


def data_of(faces, synthetic=False):  # noqa: F811
    return SimpleNamespace(set="ibug", test=faces, synthetic=synthetic)


def test_a_checked_file_is_uploaded(faces, written, kaggle, capsys):  # noqa: F811
    arguments = kaggle("Successfully submitted\\n")
    assert upload_csv(written, data_of(faces), CROP, "keypoints", "m")
    assert arguments.exists()
    assert "was uploaded to keypoints: Successfully submitted" in capsys.readouterr().out


def test_what_an_upload_lacks_is_printed(faces, written, kaggle, capsys):  # noqa: F811
    arguments = kaggle("Successfully submitted\\n")
    assert not upload_csv(written, data_of(faces), CROP, None, "m")
    printed = capsys.readouterr().out
    assert "nothing was uploaded" in printed
    assert "COMPETITION=" in printed
    assert not arguments.exists()


def test_predictions_for_synthetic_faces_are_not_uploaded(faces, written, kaggle, capsys):  # noqa: F811
    arguments = kaggle("Successfully submitted\\n")
    assert not upload_csv(written, data_of(faces, synthetic=True), CROP, "keypoints", "m")
    assert "synthetic faces" in capsys.readouterr().out
    assert not arguments.exists()


def test_a_file_that_was_damaged_since_is_not_uploaded(faces, written, kaggle):  # noqa: F811
    arguments = kaggle("Successfully submitted\\n")
    written.write_text(written.read_text().replace("Id,Predicted", "# Id,Predicted"))
    with pytest.raises(UserError, match="line 1"):
        upload_csv(written, data_of(faces), CROP, "keypoints", "m")
    assert not arguments.exists()
