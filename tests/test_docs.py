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


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_python_blocks_import_what_exists(path):
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
                module = importlib.import_module(node.module)
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:muvla|sweeps|analysis|tests|benchmarks|experiments|scripts)/[\w./-]*\w/?)(?:::\w+)?`", text
    )
    assert not [file for file in named if not (ROOT / file).exists()]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_named_objects_exist(path):
    """`muvla.module.function` in the prose."""
    for dotted in DOTTED.findall(path.read_text(encoding="utf-8")):
        if dotted.endswith(".json"):
            continue
        module, _, attribute = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), dotted
