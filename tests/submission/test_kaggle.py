"""The upload with Kaggle's command line, which a script stands in for."""

import sys
from pathlib import Path

import pytest

from foldmark.core.errors import UserError
from foldmark.core.files import file_sha256
from foldmark.submission.kaggle import find_obstacle, upload_submission


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "submissions" / "resnet18.csv"
    path.parent.mkdir()
    path.write_text("Id,Predicted\n0,1.0\n")
    return path


def upload(csv: Path) -> str:
    return upload_submission(csv, file_sha256(csv), "keypoints", "five folds")


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Puts a `kaggle` first on the PATH that keeps its arguments and the uploaded file, prints `output` and ends with `code`."""
    for name in ("API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    home, tools = tmp_path / "home", tmp_path / "tools"
    home.mkdir()
    tools.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "python"))

    def install(output: str, code: int = 0, folder: Path = tools) -> Path:
        monkeypatch.setenv("KAGGLE_API_TOKEN", "a token")
        folder.mkdir(exist_ok=True)
        tool = folder / "kaggle"
        keep = f'printf \'%s\\n\' "$@" > {tmp_path}/arguments\ncp "$6" {tmp_path}/uploaded'
        tool.write_text(f"#!/bin/sh\n{keep}\nprintf '{output}'\nexit {code}\n")
        tool.chmod(0o755)
        return tmp_path / "arguments"

    return install


def test_an_upload_hands_a_copy_to_the_kaggle_tool(written, kaggle):
    arguments = kaggle("100%%|#####| 2.1M/2.1M\\nSuccessfully submitted to Keypoints\\n")
    assert upload(written) == "Successfully submitted to Keypoints"
    said = arguments.read_text().splitlines()
    copy = Path(said.pop(5))
    assert said == ["competitions", "submit", "-c", "keypoints", "-f", "-m", "five folds"]
    # The name is what the competition's page lists.
    assert copy.name == written.name
    assert not copy.exists()
    assert arguments.with_name("uploaded").read_bytes() == written.read_bytes()


def test_the_kaggle_tool_is_found_beside_python(written, kaggle, tmp_path):
    arguments = kaggle("Successfully submitted\\n", folder=tmp_path / "environment")
    upload(written)
    assert arguments.exists()


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("noise\\n401 Client Error: Unauthorized\\n", 1, "401 Client Error"),
        ("Traceback\\n  more\\nValueError: strange\\n\\n", 1, "ValueError: strange"),
        ("", 3, "it said nothing"),
        # Older versions of the tool end well after these.
        ("403 - Forbidden\\n", 0, "403 - Forbidden"),
        ("100%%|##| 2.1M/2.1M\\rdone\\nCould not submit to competition\\nbye\\n", 0, "Could not submit to competition"),
    ],
)
def test_a_failed_upload_is_told_with_the_tools_own_words(output, code, said, written, kaggle):
    kaggle(output, code)
    with pytest.raises(UserError) as refusal:
        upload(written)
    assert said in str(refusal.value)
    assert str(written) in str(refusal.value)


def test_what_an_upload_lacks_is_named(written, kaggle, tmp_path, monkeypatch):
    def missing(competition: str | None = "keypoints") -> str:
        return find_obstacle(written, competition) or "nothing"

    assert "not installed" in missing()
    kaggle("Successfully submitted\\n")
    assert "COMPETITION=" in missing(None)
    assert "COMPETITION=" in missing("")
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert "no login" in missing()
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    assert "KAGGLE_USERNAME is set without" in missing()
    monkeypatch.delenv("KAGGLE_USERNAME")
    for file in ("home/.kaggle/kaggle.json", "home/.config/kaggle/kaggle.json", "home/.kaggle/access_token"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
        assert missing() == "nothing"
        (tmp_path / file).unlink()


def test_a_file_that_changed_since_its_check_is_not_uploaded(written, kaggle):
    arguments = kaggle("Successfully submitted\\n")
    checked = file_sha256(written)
    written.write_text(written.read_text() + "1,2.0\n")
    with pytest.raises(UserError, match="changed since it was checked"):
        upload_submission(written, checked, "keypoints", "m")
    assert not arguments.exists()
