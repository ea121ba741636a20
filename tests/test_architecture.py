"""Who may import whom, how long a file may be, what must not be in the tree."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("muvla", "sweeps", "analysis", "experiments", "benchmarks")
FILES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]

# Folder inside muvla → folders of muvla that it may import (besides itself and the plain modules).
MAY_IMPORT = {
    "memory": set(),
    "models": {"memory"},
    "envs": set(),
    "data": {"envs"},
    "recurrence": {"models", "memory", "envs.phases", "interventions.schedule"},
    "training": {"models", "memory", "recurrence", "data", "envs.phases", "provenance"},
    "evaluation": {"models", "memory", "recurrence", "data", "envs"},
    "interventions": {"models", "memory", "recurrence", "data", "envs", "evaluation"},
    "probes": {"models", "memory", "recurrence", "training", "data", "envs", "evaluation", "interventions"}
    | {"provenance"},
}
PLAIN = {
    "anatomy", "config", "configtools", "cores", "dataconfig", "errors", "files", "presets", "randomness", "__init__",
}  # fmt: skip
# The entry points that put the parts together.
ENTRIES = {"assetverbs", "cli", "commands", "dataverbs", "doctor", "probeverbs"}
JOINTS = ENTRIES | {"runs", "provenance", "inspection", "released_runs", "exporting", "probing"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        top = name.split(".")[0]
        if package == "muvla":
            lazily_in_cli = path.name == "cli.py" and name not in imports(path, top_level_only=True)
            assert top not in ("sweeps", "analysis", "experiments") or lazily_in_cli, name
        if package == "sweeps":
            assert top not in ("analysis", "experiments"), name
        if package == "analysis":
            allowed = (
                "muvla.evaluation.records",
                "muvla.evaluation.predictions",
                "muvla.config",
                "muvla.errors",
                "muvla.files",
            )
            assert top not in ("sweeps", "experiments") and (top != "muvla" or name in allowed), name


@pytest.mark.parametrize("path", sorted((ROOT / "muvla").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_parts_of_the_library_keep_their_order(path):
    part = path.relative_to(ROOT / "muvla").parts[0].removesuffix(".py")
    if part in JOINTS:
        return
    for name in imports(path):
        if not name.startswith("muvla."):
            continue
        target = name.removeprefix("muvla.")
        folder = target.split(".")[0]
        if folder in PLAIN or folder == part:
            continue
        assert part in MAY_IMPORT, f"{path.name} imports {name}"
        assert folder in MAY_IMPORT[part] or target in MAY_IMPORT[part], f"{path.name} imports {name}"


def test_models_know_no_simulator_and_envs_no_torch_model():
    for folder, forbidden in (("models", ("gymnasium", "mani_skill", "sapien")), ("envs", ("transformers", "peft"))):
        for path in (ROOT / "muvla" / folder).rglob("*.py"):
            assert not {n.split(".")[0] for n in imports(path)} & set(forbidden), path


@pytest.mark.slow
def test_the_library_imports_without_simulator_or_sweeps():
    """In a fresh process: a user of muvla pays for what is used."""
    code = (
        "import sys, muvla.runs, muvla.envs.registry; "
        "bad = {'mani_skill', 'sapien', 'robosuite', 'libero', 'sweeps', 'analysis', 'mlflow', 'pandas'}; "
        "bad &= set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.name))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


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
