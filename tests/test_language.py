"""The rules of plain English that a script can check.

A docstring, heading or help text begins with its subject. Sentences of README.md and docs average at most 20 words.
Variables are named after the thing that they hold.
"""

import ast
import re

import pytest
import typer

from helpers.paths import ROOT
from muvla.cli.main import app

PYTHON = [path for package in ("muvla", "sweeps", "analysis") for path in sorted((ROOT / package).rglob("*.py"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRONG_START = re.compile(r"\W*(Of|What|Whether|Those|That|In which)\b")
NAMELESS = {"one", "own", "told", "found", "known", "kind"}
WORDS_PER_SENTENCE = 20


def name(path) -> str:
    return str(path.relative_to(ROOT))


def paragraphs(markdown: str) -> list[str]:
    """The prose of a page: no code, no table, no heading, no picture. A list's item is a paragraph."""
    texts: list[str] = []
    for block in re.split(r"\n\s*\n", re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.DOTALL | re.MULTILINE)):
        texts.append("")
        for line in block.splitlines():
            if line.startswith(("    ", "|", "#", "!", "<", ":::", "---")):
                continue
            item = re.match(r"\s*(?:[-*]|\d+\.)\s+", line)
            if item:
                texts.append("")
            texts[-1] += " " + (line[item.end() :] if item else line.strip())
    return [text.strip() for text in texts if text.strip()]


def sentences(paragraph: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+(?=[^a-z])", paragraph) if part]


def headings(markdown: str) -> list[str]:
    prose = re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)


def docstrings(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def help_texts(tree: ast.Module):
    """Literal `help=` of options, arguments and panels."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("help", "short_help", "epilog"):
            for part in ast.walk(node.value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value
                    break


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_docstrings_and_help_begin_with_their_subject(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [
        f"{name(path)}:{line}: {sentence[:70]}"
        for line, text in (*docstrings(tree), *help_texts(tree))
        for paragraph in re.split(r"\n\s*\n", text)
        for sentence in sentences(" ".join(paragraph.split()))
        if WRONG_START.match(sentence)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_variables_are_named_after_what_they_hold(path):
    wrong, tree = [], ast.parse(path.read_text(encoding="utf-8"))
    # A field of a class may have a serialized name.
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = {line.target for node in classes for line in node.body if isinstance(line, ast.AnnAssign)}
    for node in ast.walk(tree):
        if node in fields:
            continue
        variable = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
        variable = node.arg if isinstance(node, ast.arg) else variable
        if variable in NAMELESS:
            wrong.append(f"{name(path)}:{node.lineno}: {variable}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_pages_are_written_in_short_sentences(path):
    text = path.read_text(encoding="utf-8")
    prose = [sentence for paragraph in paragraphs(text) for sentence in sentences(paragraph)]
    wrong = [line for line in (*headings(text), *prose) if WRONG_START.match(line)]
    assert not wrong, "\n".join(wrong)
    lengths = [len(sentence.split()) for sentence in prose]
    assert not lengths or sum(lengths) / len(lengths) <= WORDS_PER_SENTENCE


def test_every_help_text_of_the_command_line_begins_with_its_subject():
    wrong, stack = [], [typer.main.get_command(app)]
    while stack:
        command = stack.pop()
        stack += getattr(command, "commands", {}).values()
        texts = [command.help, command.epilog, *(getattr(option, "help", None) for option in command.params)]
        for text in filter(None, texts):
            wrong += [f"{command.name}: {s[:70]}" for s in sentences(" ".join(text.split())) if WRONG_START.match(s)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["What it is.", "Of all rows, one.", "(Whether it runs.)", "In which rows are."])
def test_a_wrong_start_is_seen(text):
    assert WRONG_START.match(text) and not WRONG_START.match("Whatever runs, runs.")


def test_prose_is_told_from_code_and_tables():
    page = "# What\n\n```python\nWhat()\n```\n\n| What |\n|---|\n\nOne. Two\nlines, e.g. three.\n\n- item\n- item 2\n\n"
    page += "    What\n"
    assert paragraphs(page) == ["One. Two lines, e.g. three.", "item", "item 2"]
    assert sentences(paragraphs(page)[0]) == ["One.", "Two lines, e.g. three."] and headings(page) == ["What"]
