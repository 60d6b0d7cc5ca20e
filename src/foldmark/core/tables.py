"""The tables that a setting picks from by name: backbones, heads, losses, optimizers."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from foldmark.core.errors import UserError

Entry = TypeVar("Entry")


def pick(table: Mapping[str, Entry], name: str, key: str) -> Entry:
    """The table's entry of that name. Raises UserError that names the config key and the nearest name for an unknown one."""
    if name in table:
        return table[name]
    near = get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(table))}."
    raise UserError(f"{key}: there is no {name!r}; {hint}")
