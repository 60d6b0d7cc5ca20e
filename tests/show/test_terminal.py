"""Text of others on the terminal: shown as it is, on one line, whatever it holds."""

import logging

import pytest

from foldmark.show.terminal import console, plain_text, say, say_error, say_made, say_table, show_log, show_progress

HOSTILE = {
    "x[/b]": "x[/b]",
    "[old]": "[old]",
    "a[link=file:///]b": "a[link=file:///]b",
    ":cat: $x$": ":cat: $x$",
    "a\nmade: b": r"a\nmade: b",
    "\x1b[31mred\x07": r"\x1b[31mred\x07",
    "tab\there\r": r"tab\there\r",
    "\u202egnp.exe": r"\u202egnp.exe",
    "line\u2028end": r"line\u2028end",
    "\udcff.jpg": r"\udcff.jpg",
    "\x9b2J": r"\x9b2J",
    "Zoë 你好": "Zoë 你好",
}


@pytest.mark.parametrize(("given", "shown"), HOSTILE.items())
def test_text_of_others_is_neither_markup_nor_control(given, shown, capsys):
    say(f"{given}: gone")
    say_made(given, f"make csv NAME={given}")
    say_error(given)
    say_table([{"picture": given, given: "1"}], title=given)
    with show_progress(given, 1) as done:
        done(1)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{shown}: gone\nmade: {shown}\nNext: make csv NAME={shown}\n")
    assert printed.out.count(shown) == 6
    assert printed.err == f"foldmark: {shown}\n"


# Without bytes that are not UTF-8: pytest captures what is logged and cannot hand it from one process to another.
@pytest.mark.parametrize("given", [text for text in HOSTILE if "\udcff" not in text])
def test_what_packages_log_is_shown_as_it_is(given, capsys):
    show_log()
    logging.getLogger("foldmark.data.crops").info("%s: [cut] again", given)
    assert capsys.readouterr().out == f"{HOSTILE[given]}: [cut] again\n"


def test_paths_below_the_working_folder_are_relative(tmp_path, monkeypatch):
    (tmp_path / "work [1]").mkdir()
    here = tmp_path / "work [1]"
    monkeypatch.chdir(here)
    assert plain_text(f"{here}/runs/a, FILE={here}/b.csv") == "runs/a, FILE=b.csv"
    for elsewhere in (f"{here} [1]/a", f"/other{here}/a", f"{here}", "/tmp"):
        assert plain_text(elsewhere) == elsewhere
    monkeypatch.chdir("/")
    assert plain_text("/tmp/a") == "/tmp/a"


def test_a_removed_working_folder_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert plain_text("/tmp/a") == "/tmp/a"


def test_a_terminal_that_cannot_show_a_letter_gets_its_code(monkeypatch, capsys):
    monkeypatch.setattr(type(console), "encoding", "ascii")
    say("Zoë")
    assert capsys.readouterr().out == "Zo\\xeb\n"


def test_a_narrow_terminal_has_the_chosen_columns(monkeypatch, capsys):
    rows = [{"experiment": "a", "NME %": "4.50", "all": "x" * 60}, {"experiment": "b", "NME %": "", "all": ["y", "z"]}]
    monkeypatch.setattr(console, "width", 200)
    say_table(rows, narrow=["experiment", "NME %"])
    assert "x" * 60 in capsys.readouterr().out
    monkeypatch.setattr(console, "width", 40)
    say_table(rows, narrow=["experiment", "NME %"])
    printed = capsys.readouterr().out
    assert "NME %" in printed
    assert "x" not in printed.replace("experiment", "")
