"""The table of data sets: picked by name, found below a root, and synthetic where there is none."""

import re

import pytest

from foldmark.core.errors import UserError
from foldmark.data import sets
from foldmark.data.ibug import TEST_XML
from foldmark.data.sets import SETS, find_data, pick_set
from foldmark.synthetic.sets import load_data, synthetic_notice


def test_an_unknown_set_is_refused_with_the_nearest_name_before_anything_is_made(foldmark, workplace, synthetic_root):
    for command in ("check", "train", "csv", "model"):
        arguments = ["resnet18"] if command == "model" else ["--data-root", synthetic_root]
        done = foldmark(command, *arguments, "--set", "data.set=ibg")
        assert done.returncode == 2
        assert "data.set: there is no 'ibg'; did you mean ibug?" in done.stderr
    assert [path.name for path in workplace.iterdir()] == ["configs"]


def test_each_row_is_complete():
    for name, kind in SETS.items():
        assert pick_set(name) is kind
        assert kind.markup.eyes
        assert sorted(kind.markup.mirror) == list(range(kind.markup.count))
        assert (kind.markup.mirror[kind.markup.mirror] == range(kind.markup.count)).all()
        assert f"make data {kind.source.variable}=" in kind.how_to_get or kind.source.url


def test_what_is_there_is_loaded_and_known_as_synthetic(synthetic_root, tmp_path):
    data = load_data(synthetic_root, "ibug", tmp_path / "cache")
    assert data.synthetic
    assert data.has_test_list
    assert (len(data.train), len(data.test)) == (48, 8)
    assert not (tmp_path / "cache").exists()
    notice = synthetic_notice(synthetic_root, data)
    assert "NO REAL FACES" in notice
    assert str(synthetic_root) in notice
    assert TEST_XML in notice


def test_a_set_without_synthetic_faces_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sets.SETS, "other", SETS["imm"])
    with pytest.raises(UserError, match="no synthetic faces for it"):
        load_data(tmp_path, "other", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["nowhere", "a" * 300, "loop", "file"])
def test_a_root_that_is_no_folder_is_a_sentence(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=re.escape(f"DATA_ROOT={tmp_path / name}: ")):
        find_data(tmp_path / name, "ibug")
