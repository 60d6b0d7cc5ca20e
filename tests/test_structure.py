"""The structure of the package, as far as the linters do not check it: small files, small folders, short parameter lists, and no
private name that crosses a file."""

import ast
from collections import Counter

import pytest

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "foldmark"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES, MOST_MODULES, MOST_PARAMETERS = 300, 12, 5


def each_file(files):
    return pytest.mark.parametrize("path", files, ids=lambda path: path.relative_to(SOURCE).as_posix())


@each_file(FILES)
def test_a_file_is_short_and_takes_no_private_name_from_another(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    ours = [name.name for node in imports if (node.module or "").startswith("foldmark") for name in node.names]
    assert not [name for name in ours if name.startswith("_") and not name.startswith("__")]


@each_file([path for path in FILES if path.parent.name != "synthetic"])  # its formulas have many terms
def test_a_parameter_list_is_short(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(names) <= MOST_PARAMETERS, node.name


def test_a_folder_is_small_and_its_init_holds_no_logic():
    modules = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert max(modules.values()) <= MOST_MODULES
    for path in SOURCE.glob("*/__init__.py"):
        (docstring,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(docstring, ast.Expr), path
