"""YAML as plain values: no objects, no references, no key twice, and no number that YAML 1.1 reads otherwise than people do."""

import re
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

# YAML 1.1 reads 010 as 8, 1:30 as 90, 1_000 as 1000 and yes as true.
SURPRISES = re.compile(r"[-+]?0[0-9_]+|[-+]?0[xXbB][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?|[-+]?[0-9]+_[0-9_.]*")
OTHER_BOOLEANS = {"yes", "no", "on", "off", "y", "n"}


def read_yaml(text: str) -> Any:
    """The values in a YAML text. Raises ValueError, in one line, for whatever is wrong with it."""
    return deepcopy(_parse(text))


@lru_cache(maxsize=64)  # a command reads the config of each fold of a run, and they are the same text
def _parse(text: str) -> Any:
    try:
        return yaml.load(text, _PlainLoader)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except Exception as error:  # PyYAML's readers of values raise nearly anything: `!!timestamp x` an AttributeError
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without references, which can grow, and without what it would misread or pass over in silence."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("references (*name) are not read; write the value out")
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if node.style is None and (SURPRISES.fullmatch(node.value) or node.value.lower() in OTHER_BOOLEANS):
            raise ValueError(f"{node.value} has two readings; write a decimal number, true or false, or put a text in quotes")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"key {twice} is there twice")
        return super().construct_mapping(node, deep)
