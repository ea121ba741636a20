"""The documentation names what exists: modules, files and verbs."""

import ast
import importlib
import re

import pytest

from helpers.paths import ROOT

PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"`((?:muvla|sweeps|analysis|tests|benchmarks|experiments|scripts)/[\w./-]*\w/?)(?:::\w+)?`")
DOTTED = re.compile(r"`((?:muvla|sweeps|analysis)(?:\.\w+)+)`")
OURS = ("muvla", "sweeps", "analysis")


def name(path) -> str:
    return str(path.relative_to(ROOT))


def exists(dotted: str) -> bool:
    """Whether the name is a module, or an attribute of one."""
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


def test_the_api_page_names_what_exists():
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert names and not [dotted for dotted in names if not exists(dotted)]
