"""The documentation names what exists: modules, files and verbs."""

import ast
import importlib
import re

import pytest
import typer

import muvla
from helpers.paths import ROOT
from helpers.policies import PLAIN_INTERFACE
from muvla.cli.main import app
from muvla.config import Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, TaskConfig
from muvla.config.sizes import get_size
from muvla.memory.registry import MECHANISMS
from muvla.models.cost import memory_cost

PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"`((?:muvla|sweeps|analysis|tests|benchmarks|experiments|scripts)/[\w./-]*\w/?)(?:::\w+)?`")
DOTTED = re.compile(r"`((?:muvla|sweeps|analysis)(?:\.\w+)+)`")
OURS = ("muvla", "sweeps", "analysis")


def name(path) -> str:
    return str(path.relative_to(ROOT))


def exists(dotted: str) -> bool:
    """True if the name is a module or an attribute of a module."""
    module, _, attribute = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_python_blocks_import_what_exists(path):
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
                missing = [alias.name for alias in node.names if not exists(f"{node.module}.{alias.name}")]
                assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("path", [path for path in PAGES if path.parent.name != "extending"], ids=name)
def test_named_files_exist(path):
    """The pages about extensions are left out: they name files that a reader writes."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:muvla|sweeps|analysis|tests|benchmarks|experiments|scripts)/[\w./-]*\w/?)(?:::\w+)?`", text
    )
    assert not [file for file in named if not (ROOT / file).exists()]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_named_objects_exist(path):
    """`muvla.module.function` in the prose."""
    named = DOTTED.findall(path.read_text(encoding="utf-8"))
    assert not [dotted for dotted in named if not dotted.endswith(".json") and not exists(dotted)]


def test_the_api_page_names_every_public_name():
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert not [dotted for dotted in names if not exists(dotted)]
    assert sorted(dotted.rpartition(".")[2] for dotted in names) == sorted(muvla.__all__)


def commands(path) -> list[list[str]]:
    """The `muvla …` lines of indented or fenced blocks, and of code in the prose, as words without comments."""
    text = path.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    muvla ")]
    lines += re.findall(r"`(muvla [^`]+)`", " ".join(text.split()))
    return [line.partition(" #")[0].split()[1:] for line in lines]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_have_verbs_and_options_that_exist(path):
    for words in commands(path):
        command = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, words
            command, words = command.commands[words[0]], words[1:]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - options - {"--help"}
        assert not unknown, f"{command.name}: {unknown}"


def costs() -> dict[str, list[str]]:
    """The rows of the page's table of costs: mechanism with fields → the columns."""
    text = (ROOT / "docs" / "mechanisms.md").read_text(encoding="utf-8")
    table = text.partition("| mechanism | parameters |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {first: columns for first, *columns in rows}


def test_every_mechanism_has_a_section_and_a_row_of_costs():
    text = (ROOT / "docs" / "mechanisms.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## `(\w+)`", text, re.MULTILINE)
    assert set(sections) == {re.match(r"`(\w+)`", row).group(1) for row in costs()} == set(MECHANISMS.members)


@pytest.mark.parametrize("row", costs())
def test_the_table_of_costs_is_that_of_the_code(row):
    mechanism, *settings = re.findall(r"`([^`]+)`", row)
    values = {"True": True, "0.1": 0.1}
    fields = {
        name: values.get(value, int(value) if value.isdigit() else value)
        for name, value in (setting.split("=") for setting in settings)
    }
    data = DataConfig(DatasetConfig(TaskConfig("RecallPosition3-v0")))
    cell = Cell(ModelConfig(get_size("tiny"), chunk=4, reserve=8), data, MemoryConfig(mechanism, **fields))
    cost = memory_cost(cell, PLAIN_INTERFACE)
    assert costs()[row] == [f"{cost[name]:,}" for name in ("parameters", "tokens", "flops", "bytes", "model_flops")]
