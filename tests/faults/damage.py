"""The kinds of damage that a file can take: each changes the file at `path`; `others` are files of the same name that belong to
another fold or run. A kind that a file cannot take gives False."""

import os
from collections.abc import Callable
from pathlib import Path


def remove(path: Path, others: list[Path]) -> None:
    path.unlink()


def empty(path: Path, others: list[Path]) -> None:
    path.write_bytes(b"")


def cut_short(path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path, others: list[Path]) -> None:
    path.write_bytes(bytes(range(255, -1, -1)) * 9)


def garble_text(path: Path, others: list[Path]) -> None:
    """Well-formed for many readers, but not what it should be."""
    path.write_bytes(b'{"a": [1, null]}\n')


def take_first_other(path: Path, others: list[Path]) -> None:
    path.write_bytes(others[0].read_bytes())


def take_last_other(path: Path, others: list[Path]) -> None:
    path.write_bytes(others[-1].read_bytes())


def become_folder(path: Path, others: list[Path]) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path, others: list[Path]) -> None:
    path.unlink()
    os.mkfifo(path)


def become_unreadable(path: Path, others: list[Path]) -> None:
    """A regular file whose disk answers every read with an error."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


KINDS: dict[str, Callable[[Path, list[Path]], None]] = {
    "missing": remove,
    "empty": empty,
    "cut short": cut_short,
    "garbage": garble,
    "other text": garble_text,
    "another's": take_first_other,
    "yet another's": take_last_other,
    "a folder": become_folder,
    "a pipe": become_pipe,
    "unreadable": become_unreadable,
}
