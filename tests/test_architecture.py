"""The import rule, the size of functions, and what must not be in the tree."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGES = ("muvla", "sweeps", "analysis", "experiments", "benchmarks")
FILES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
HOUSE = [p for package in PACKAGES[:3] for p in sorted((ROOT / package).rglob("*.py"))]

# The import rule: a part imports parts of earlier lines. Parts of one line do not import each other, but for `data`,
# which reads `envs`.
ORDER = (
    ("errors", "stats"),
    ("utils",),
    ("config",),
    ("memory", "envs"),
    ("data", "models"),
    ("checkpoints",),
    ("interventions",),
    ("recurrence",),
    ("training", "evaluation"),
    ("probes",),
    ("runs",),
    ("serving",),
    ("sweeps",),
    ("analysis",),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
LONGEST_FUNCTION = 60  # lines
MOST_IMPORTS = 20  # of our own modules


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module in ("muvla", "sweeps", "analysis"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    top, *rest = module.split(".")
    if top == "muvla":
        return rest[0] if rest and rest[0] in LEVEL else None
    return top if top in LEVEL else None


def part_of_file(path: Path) -> str | None:
    return part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


@pytest.mark.parametrize("path", HOUSE, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    part = part_of_file(path)
    if part is None:  # the package root, which names what lies deeper
        return
    for module in imports(path):
        target = part_of(module)
        if target is None or target == part or (part, target) == ("data", "envs"):
            continue
        assert LEVEL[target] < LEVEL[part], f"{path.relative_to(ROOT)} imports {module}"


def test_every_folder_has_its_place_in_the_order():
    folders = {p.name for p in (ROOT / "muvla").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders <= LEVEL.keys()
    assert {p.stem for p in (ROOT / "muvla").glob("*.py")} == {"__init__", "errors"}


def test_no_two_modules_import_each_other():
    """Imports for type checking count too: one module would not be understood without the other."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in HOUSE if p.stem != "__init__"}
    edges = {name: {module for module in imports(path) if module in names} for name, path in names.items()}
    order: list[str] = []
    for module in names:
        _visit(module, edges, order, ())


def _visit(module: str, edges: dict[str, set[str]], done: list[str], above: tuple[str, ...]) -> None:
    assert module not in above, " → ".join([*above[above.index(module) :], module])
    if module not in done:
        for target in sorted(edges[module]):
            _visit(target, edges, done, (*above, module))
        done.append(module)


def test_no_formatter_is_switched_off():
    marks = ("# " + "fmt: skip", "# " + "fmt: off")
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "notebooks").rglob("*.py"))]:
        assert not [mark for mark in marks if mark in path.read_text(encoding="utf-8")], path


def test_studies_and_benchmarks_are_not_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert packages["find"]["include"] == ["muvla*", "sweeps*", "analysis*"]


def test_the_import_rule_of_the_contributors_page_is_this_one():
    page = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    stated = [set(part.split(", ")) for part in re.search(r"`(utils, .+?← cli)`", page)[1].split(" ← ")]
    assert stated == [set(ORDER[0]) | set(ORDER[1]), *map(set, ORDER[2:])]


@pytest.mark.parametrize("path", HOUSE, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_and_import_lists_are_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{path.relative_to(ROOT)}: {node.name}"
    ours = {name for name in imports(path) if name.split(".")[0] in ("muvla", "sweeps", "analysis")}
    assert len(ours) <= MOST_IMPORTS, sorted(ours)


def test_models_know_no_simulator_and_envs_no_torch_model():
    for folder, forbidden in (("models", ("gymnasium", "mani_skill", "sapien")), ("envs", ("transformers", "peft"))):
        for path in (ROOT / "muvla" / folder).rglob("*.py"):
            assert not {n.split(".")[0] for n in imports(path)} & set(forbidden), path


@pytest.mark.slow
def test_the_library_imports_without_simulator_or_sweeps():
    """In a fresh process: a user of muvla pays for what is used."""
    code = (
        "import sys, muvla.runs.run, muvla.envs.registry; "
        "bad = {'mani_skill', 'sapien', 'robosuite', 'libero', 'sweeps', 'analysis', 'mlflow', 'pandas'}; "
        "bad &= set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr


def test_no_pickle_no_forked_dependency_no_tensorflow():
    for path in FILES:
        found = {n.split(".")[0] for n in imports(path)}
        assert not found & {"pickle", "dill", "joblib", "tensorflow", "timm"}, path


def test_nothing_of_the_project_is_ignored_by_git():
    """A pattern like `data/` would keep muvla/data out of every clone."""
    git = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", *PACKAGES, "tests", "notebooks"]
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    run = subprocess.run(git, capture_output=True, text=True, cwd=ROOT, check=False)
    if run.returncode:
        pytest.skip(f"not a git checkout: {run.stderr.strip()}")
    assert [name for name in run.stdout.splitlines() if name.endswith((".py", ".json"))] == []


def test_make_works_on_one_target_at_a_time_also_under_j(tmp_path):
    """Two set-ups at once would run pip twice in one virtual environment."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    own = "both: first second\nfirst:\n\t@sleep 0.3; echo first\nsecond:\n\t@echo second\n"
    (tmp_path / "Makefile").write_text(f"include {ROOT / 'Makefile'}\n{own}")
    run = subprocess.run(["make", "-s", "-j4", "both"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.stdout.split() == ["first", "second"], run.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_test_imports_another(path):
    """Shared code lies in tests/helpers, fixtures in conftest.py. Code in strings counts too."""
    modules = {p.stem for p in (ROOT / "tests").rglob("test_*.py")} | {"conftest"}
    text = path.read_text(encoding="utf-8")
    assert not {name.split(".")[-1] for name in imports(path)} & modules
    assert not [name for name in re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE) if name in modules]


def test_no_test_looks_at_the_shared_memory_of_others():
    """Another program may make shared memory while the tests run."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if "/dev/" + "shm" in path.read_text(encoding="utf-8")]
    assert [path.name for path in files] == ["processes.py"], "helpers.processes.shared_memory_of asks own processes"
