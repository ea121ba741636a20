"""Every error of the code has its four parts, and a remedy that says what to do."""

import ast
import re

import pytest

from helpers.paths import ROOT
from muvla.errors import DiskError, MuvlaError, NotAMeasurement, RankLost, unknown_name

FILES = [path for package in ("muvla", "sweeps", "analysis") for path in sorted((ROOT / package).rglob("*.py"))]
PARTS = ("got", "expected", "remedy")
# "correct it" and its like say only that something is wrong.
VERB = r"^(correct|fix|change|repair)"
EMPTY_REMEDY = re.compile(
    rf"{VERB} (it|them|this|that)\b|{VERB} the \w+( there)?\.?$|^check (it|them)\b", re.IGNORECASE
)


def error_classes() -> set[str]:
    """The names of MuvlaError and of every class of the code that derives from it."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names: set[str] = {"MuvlaError"}
    while more := {c.name for c in classes if any(ast.unparse(b).split(".")[-1] in names for b in c.bases)} - names:
        names |= more
    return names


ERRORS = error_classes()


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ERRORS:
            yield node


def text_of(node: ast.expr) -> str | None:
    """The literal words of a string or f-string, `…` for what is filled in; None for another expression."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def texts_of(node: ast.expr) -> list[str]:
    """All texts that the expression can give, as far as they are literal: both sides of a condition, too."""
    if isinstance(node, ast.IfExp):
        return [*texts_of(node.body), *texts_of(node.orelse)]
    text = text_of(node)
    return [] if text is None else [text]


def is_sound(remedy: str) -> bool:
    return len(remedy.split()) >= 2 and not EMPTY_REMEDY.match(remedy.strip())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_error_has_four_parts_and_a_sound_remedy(path):
    for call in calls(path):
        place = f"{path.relative_to(ROOT)}:{call.lineno}"
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if None in given or any(isinstance(argument, ast.Starred) for argument in call.args):
            continue  # the parts come from another error
        field = call.args[0] if call.args else given.get("field")
        assert field is not None and all(part in given for part in PARTS), f"{place}: a part is missing"
        for part in (field, given["expected"], given["remedy"]):
            assert all(text.strip() for text in texts_of(part)), f"{place}: a part is empty"
        for remedy in texts_of(given["remedy"]):
            assert is_sound(remedy), f"{place}: the remedy {remedy!r} does not say what to do"


@pytest.mark.parametrize("error", [MuvlaError, NotAMeasurement, DiskError, RankLost])
def test_an_error_prints_its_four_parts(error):
    raised = error("memory.m", got=-1, expected="0 or more", remedy="use --set memory.m=4")
    assert str(raised) == "memory.m: got -1, expected 0 or more. Remedy: use --set memory.m=4"
    assert (raised.field, raised.got) == ("memory.m", -1)


def test_an_unknown_name_gets_its_nearest_match():
    raised = unknown_name("task", "RecallPositon3-v0", ["RecallPosition3-v0", "RecallColor3-v0"], "muvla ls tasks")
    assert raised.field == "task" and "'RecallPosition3-v0'" in raised.remedy and "muvla ls tasks" in raised.remedy
    far = unknown_name("task", "xyz", ["RecallPosition3-v0", "RecallColor3-v0"])
    assert "RecallColor3-v0" in far.expected and is_sound(far.remedy)


@pytest.mark.parametrize("remedy", ["correct it", "Correct the name", "fix them", "correct it there", "", "rerun"])
def test_a_remedy_that_says_nothing_is_seen(remedy):
    assert not is_sound(remedy)
