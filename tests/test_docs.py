"""The documentation names only what is there: targets, commands, options, files, configs, keys and functions."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

import foldmark
from foldmark.cli import app
from foldmark.core.config import list_keys
from tests.conftest import REPOSITORY

DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/*.md"),
        *REPOSITORY.glob("notebooks/*.ipynb"),
        REPOSITORY / "benchmarks/README.md",
        REPOSITORY / "submissions/README.md",
    )
)
EVERYWHERE = pytest.mark.parametrize("document", DOCUMENTS)

# Folders that commands write into, and files that the reader of an example writes.
MADE = ("runs", "data", "cache", "photos", "exports", "submissions", "wandb", "photos-in")
EXAMPLES = {"configs/mine.yaml", "mine"}
IN_RUN_FOLDERS = {"config.yaml"}
# Files with these endings are the checkout's, so their bare names must be there, too.
OURS = {".py", ".md", ".yaml", ".yml", ".toml", ".lock", ".svg"}
SECTIONS = "|".join(key for key in list_keys() if "." not in key)


def test_the_readme_stays_short():
    assert len(text("README.md").splitlines()) <= 120


@EVERYWHERE
def test_make_targets_and_variables_are_in_the_makefile(document):
    targets, variables = makefile()
    for line in code(document):
        for words in commands(line, "make"):
            for word in words:
                name, equals, _ = word.partition("=")
                if equals:
                    assert name in variables, f"{line}: the Makefile has no variable {name}"
                else:
                    assert word in targets, f"{line}: the Makefile has no target {word}"


@EVERYWHERE
def test_foldmark_commands_and_options_are_on_the_command_line(document):
    for line in code(document):
        for words in commands(line, "foldmark"):
            command = app
            if not words[0].startswith("-"):
                assert words[0] in app.commands, f"{line}: there is no command {words[0]}"
                command = app.commands[words[0]]
            for word in words:
                if word.startswith("--"):
                    assert word.partition("=")[0] in options(command), f"{line}: there is no option {word}"


@EVERYWHERE
def test_options_named_alone_belong_to_some_command_of_foldmark(document):
    known = set().union(*map(options, app.commands.values()))
    for span in spans(document):
        # pip's own.
        if re.fullmatch(r"--[a-z-]+", span) and span != "--require-hashes":
            assert span in known, span


@EVERYWHERE
def test_paths_are_in_the_checkout(document):
    names = {path.name for folder in ("configs", "src", "tests", "docs") for path in (REPOSITORY / folder).rglob("*")}
    names |= {path.name for path in REPOSITORY.iterdir()}
    for word in (word for line in code(document) for word in re.split(r"[\s\"'=()\[\],;]+", line)):
        if re.search(r"[<>*~$:{}]|\.\.\.|^[/.-]*$|^/|-$", word) or word.startswith(tuple(f"{folder}/" for folder in MADE)):
            continue
        if "/" in word and re.match(r"(src|tests|docs|configs|benchmarks|\.github|\.ci)/", word) and word not in EXAMPLES:
            assert (REPOSITORY / word).exists(), word
        elif "/" not in word and Path(word).suffix in OURS and re.fullmatch(r"[\w-]+\.\w+", word):
            assert word in names | IN_RUN_FOLDERS, word


@EVERYWHERE
def test_functions_are_in_the_files_that_they_are_said_to_be_in(document):
    for path, functions in re.findall(r"`(src/[^`]+\.py)`: ((?:`\w+`(?:, )?)+)", text(document)):
        source = (REPOSITORY / path).read_text()
        for name in re.findall(r"\w+", functions):
            assert re.search(rf"^\s*(def|class) {name}\b|^{name} = ", source, re.MULTILINE), f"{path} has no {name}"


@EVERYWHERE
def test_configs_are_in_the_config_folder(document):
    for line in code(document):
        for name in re.findall(r"CONFIG=([\w-]+)(?!\S*\.\.\.)", line):
            assert name in configs() | EXAMPLES, f"{line}: there is no config {name}"


def test_the_training_page_lists_every_config():
    assert first_column(section("docs/training.md", "## Variants")) == configs()


@EVERYWHERE
def test_config_keys_are_valid(document):
    lines = code(document)
    keys = {key for line in lines for key in re.findall(rf"(?<![\w./-])((?:{SECTIONS})\.[a-z_]+)(?![\w./(-])", line)}
    keys |= {f"{one}.{key}" for line in lines for one, key in re.findall(rf"\b({SECTIONS}): \{{(\w+):", line)}
    assert not [key for key in keys if key not in list_keys() and Path(key).suffix not in OURS | {".csv", ".json"}]


def test_messages_in_troubleshooting_are_those_of_the_code():
    page = text("docs/troubleshooting.md").replace(section("docs/troubleshooting.md", "## The competition file"), "")
    sources = [REPOSITORY / "Makefile", *(REPOSITORY / "src").rglob("*.py")]
    # A message may be split over several lines of code.
    messages = re.sub(r'"\s*f?"', "", " ".join(source.read_text() for source in sources))
    for message in re.findall(r"^\| [^|`]*`([^`]+)`[^|]*\|", page, re.MULTILINE):
        for part in filter(None, (part.strip() for part in message.split("..."))):
            assert part in messages, message


@EVERYWHERE
def test_environment_variables_are_read(document):
    sources = [*REPOSITORY.glob("tests/**/*.py"), REPOSITORY / ".ci/run"]
    read = {name for source in sources for name in re.findall(r"FOLDMARK_[A-Z_]+", source.read_text())}
    read |= {name for command in app.commands.values() for name in variables_of(command)}
    for name in re.findall(r"\bFOLDMARK_[A-Z][A-Z_]*\b", text(document)):
        assert name in read, name


@EVERYWHERE
def test_python_examples_compile_and_name_what_foldmark_exports(document):
    for kind, block in fences(document):
        if kind == "python":
            compile(block, document, "exec")
    for line in code(document):
        for name in re.findall(r"(?<![\w./])foldmark\.([a-z]+)\(", line):
            assert name in foldmark.__all__, line


@EVERYWHERE
def test_yaml_examples_name_configs_that_are_there(document):
    for kind, block in fences(document):
        if kind == "yaml":
            assert set(yaml.safe_load(block).get("blend", [])) <= configs()


@EVERYWHERE
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_readme_names_every_target_and_the_pages_every_variable():
    targets, variables = makefile()
    named = {word for line in code("README.md") for words in commands(line, "make") for word in words}
    assert {target for target in targets if target.isalnum()} - named <= {"setup", "lock"}
    assert first_column(section("docs/getting-started.md", "## Variables")) == variables


def test_the_readme_lists_every_package():
    tree = section("README.md", "## Source tree")
    packages = {path.parent.name for path in (REPOSITORY / "src/foldmark").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == packages


def text(document: str) -> str:
    """A document as Markdown; of a notebook, its cells."""
    content = (REPOSITORY / document).read_text(encoding="utf-8")
    if not document.endswith(".ipynb"):
        return content
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(content)["cells"]]
    return "\n\n".join(f"```\n{source}\n```" if kind == "code" else source for kind, source in cells)


def section(document: str, heading: str) -> str:
    return text(document).partition(f"\n{heading}\n")[2].partition("\n## ")[0]


def first_column(table: str) -> set[str]:
    """The code in the first cells of a table's rows."""
    cells = re.findall(r"^\| (`[^|]+)\|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def fences(document: str) -> list[tuple[str, str]]:
    """The fenced blocks of a document: language and text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text(document), re.MULTILINE | re.DOTALL)


def spans(document: str) -> list[str]:
    """The code within sentences, each on one line."""
    prose = re.sub(r"^```.*?^```$", "", text(document), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def code(document: str) -> list[str]:
    """All code of a document, a line each, without the shell's comments."""
    lines = [line for _, block in fences(document) for line in block.splitlines()]
    return [re.sub(r"(^|\s)#.*", "", line) for line in lines] + spans(document)


def commands(line: str, program: str) -> list[list[str]]:
    """The words after each call of a program in a line of shell."""
    found = []
    for part in re.split(r"&&|;|\|", line):
        if not re.search(rf"(^|[\s/!]){program}\s+\S", part):
            continue
        words = shlex.split(part)
        place = next((index for index, word in enumerate(words) if re.fullmatch(rf"!?(\S*/)?{program}", word)), None)
        # `git clone ... foldmark` and `import foldmark` are no calls.
        if place is not None and len(words) > place + 1 and all("=" in word for word in words[:place]):
            found.append(words[place + 1 :])
    return found


def makefile() -> tuple[set[str], set[str]]:
    source = text("Makefile")
    targets, commands_there, variables = (
        set(" ".join(re.findall(pattern, source, re.MULTILINE)).split())
        for pattern in (r"^((?:[a-z][a-z0-9]* ?)+|\.venv/\S+):", r"^COMMANDS := (.*)", r"^VARIABLES := (.*)")
    )
    return targets | commands_there, variables | {"PYTHON"}


def configs() -> set[str]:
    return {path.stem for path in (REPOSITORY / "configs").glob("*.yaml")}


def options(command: click.Command) -> set[str]:
    named = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return named | {"--help"}


def variables_of(command: click.Command) -> set[str]:
    named = {parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str)}
    prefix = app.context_settings.get("auto_envvar_prefix")
    return named | {f"{prefix}_{parameter.name.upper()}" for parameter in command.params if prefix and parameter.name}
