"""The tiers of the tests: heavy markers are declared once, left out of `make test`, and never skipped under CI."""

import importlib
import os
import re
import subprocess
import sys
import tomllib

import pytest

from helpers.paths import ROOT, TESTS

MARKERS = {"browser", "paper", "cluster", "peers", "fuzz"}
SKIPPED = """
import pytest

@pytest.mark.fuzz
def test_heavy():
    pytest.skip("no machine")

@pytest.mark.skip(reason="no browser")
@pytest.mark.browser
def test_marked():
    pass

def test_light():
    pytest.skip("no matter")
"""


def outcomes(folder, ci: bool) -> dict[str, int]:
    """Outcome → number of tests of `SKIPPED`, in a process that has our conftest."""
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | ({"CI": "true"} if ci else {})
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(TESTS)])
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-q", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", run.stdout)}


@pytest.mark.slow
def test_under_ci_a_skipped_heavy_test_is_a_failure(tmp_path):
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    assert outcomes(tmp_path, ci=True) == {"failed": 1, "error": 1, "skipped": 1}  # one is skipped before it starts
    assert outcomes(tmp_path, ci=False) == {"skipped": 3}


def test_the_tiers_name_the_same_markers():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    assert {line.partition(":")[0] for line in declared} >= MARKERS
    makefile = (ROOT / "Makefile").read_text()
    (heavy,) = re.findall(r"^HEAVY := (.+)$", makefile, re.MULTILINE)
    assert set(heavy.split(" or ")) == MARKERS
    assert "not ($(HEAVY))" in re.search(r"^test:.*\n(.+)", makefile, re.MULTILINE)[1]
    assert re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == [
        "lint",
        "test",
        "test-heavy",
    ]


def test_no_test_installs_a_system_package():
    for path in TESTS.rglob("*.py"):
        called = re.findall(r"[\"'](?:apt-get|apt|dnf|yum)[\"' ]", path.read_text(encoding="utf-8"))
        assert not called, path


def test_the_modules_that_scripts_import_exist():
    """A script that names a moved module would take its absence for a missing renderer."""
    for script in (ROOT / "scripts").glob("*.sh"):
        for module, name in re.findall(r"from (muvla[\w.]*) import (\w+)", script.read_text(encoding="utf-8")):
            assert hasattr(importlib.import_module(module), name), script
