"""A package outside the repository adds a member of every registry, and one study uses all of them.

The package holds the worked examples of docs/extending, word by word. Nothing of this repository changes.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from helpers.packages import write_package
from helpers.paths import ROOT

# page of docs/extending → module of the package, entry-point group, name, attribute
EXAMPLES = {
    "memory": ("leaky_memory", "muvla.memory", "leaky", "LeakyMemory"),
    "suite": ("lamps", "muvla.suites", "lamps", "Lamps"),
    "intervention": ("negate_memory", "muvla.interventions", "negate", "NEGATE"),
    "probe": ("drift_probe", "muvla.probes", "drift", "DRIFT"),
    "launcher": ("serial_launcher", "muvla.launchers", "serial", "SerialLauncher"),
    "figure": ("touch_figure", "muvla.figures", "touch", "TouchFigure"),
    "section": ("played_section", "muvla.sections", "played", "PlayedSection"),
}
STUDY = """
from muvla import (
    BudgetConfig, Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, ScheduledMeasurement, Study, TaskConfig,
    get_measurement, get_protocol, get_size, no_memory,
)

protocol = get_protocol("lamps-rh@1")
study = Study(
    name="outside",
    title="Does a leaky integrator remember the lamp?",
    base=Cell(
        model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=4),
        data=DataConfig(DatasetConfig(TaskConfig("Lamps-v0"), episodes=12)),
        memory=MemoryConfig("leaky", decay=0.5),
        truncation=4,
        budget=BudgetConfig(slots=4, window=8, updates=2),
    ),
    variants={"leaky": {}, "none": no_memory()},
    factors=("memory.kind", "memory.decay"),
    seeds=(0,),
    protocols=(protocol,),
    interventions=("negate",),
    probes=(ScheduledMeasurement(get_measurement("drift"), protocol, episodes=4),),
)
"""

END = "--- end of a command ---"
# One process: every start of the command line imports torch again.
IN_TURN = f"""
import json, sys
from muvla.cli.main import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
    print({END!r}, flush=True)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder like site-packages with the package in it."""
    folder, modules, groups = tmp_path_factory.mktemp("site"), {}, {}
    for page, (module, group, name, attribute) in EXAMPLES.items():
        text = (ROOT / "docs" / "extending" / f"{page}.md").read_text(encoding="utf-8")
        modules[f"{module}.py"] = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
        groups[group] = {name: f"{module}:{attribute}"}
    write_package(folder, "muvla-outside", modules, groups)
    return folder


@pytest.mark.slow
def test_a_study_uses_seven_members_of_another_package(site, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "study.py").write_text(STUDY)

    verbs = {"memories": "leaky", "tasks": "Lamps-v0", "interventions": "negate", "probes": "drift"}
    sweep = ["sweep", "project", "--launcher", "serial", "--no-tracking"]
    commands = [sweep, ["report", "project", "--out", "report"], *(["ls", verb] for verb in verbs)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-c", IN_TURN, json.dumps(commands)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    listed = run.stdout.split(END)
    assert len(listed) == len(commands) + 1
    files = {path.name for path in (tmp_path / "report").rglob("*")}
    assert "touch.png" in files and any(name.startswith("probe-drift") for name in files)
    for page in (tmp_path / "report" / "index.html", tmp_path / "runs" / "report" / "outside" / "index.html"):
        assert "Episodes played" in page.read_text(encoding="utf-8")
    table = (tmp_path / "report" / "cells.csv").read_text()
    assert "leaky" in table and "negate" in table and "lamps-rh@1" in table
    runs = [path for path in (tmp_path / "runs").iterdir() if (path / "run.json").exists()]
    kinds = {json.loads((path / "run.json").read_text())["cell"]["memory"]["kind"] for path in runs}
    assert kinds == {"leaky", "none"}
    for (verb, name), printed in zip(verbs.items(), listed[2:], strict=False):
        assert name in printed, verb
