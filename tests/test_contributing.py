"""The worked examples do what they say; every probe is told of, under its version."""

import re
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from helpers.paths import ROOT
from helpers.policies import PLAIN_INTERFACE, tokens_read
from muvla.checkpoints.build import build_policy
from muvla.evaluation.catalog import get_protocol
from muvla.interventions import kinds, parse_intervention
from muvla.probes import registry
from muvla.probes.registry import GRIDS, MEASUREMENTS, get_measurement, get_probe
from muvla.probes.traces import traces_of

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=3, slots=3)


def example(title):
    """Its first block of Python, and all of its text."""
    (text,) = [part for part in TEXT.split("\n## ") if part.startswith(title)]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], text


def test_an_intervention_is_a_function_and_a_line(cell_with, monkeypatch):
    code, text = example("Worked example: adding an intervention")
    names = dict(vars(kinds))
    exec(code, names)
    line = eval(re.search(r"`(Kind\(\"negate\".*?\)),`", text)[1], names)
    monkeypatch.setitem(kinds.INTERVENTIONS, line.name, line)
    policy = build_policy(cell_with(), PLAIN_INTERFACE).eval()
    (read, _), (plain, _) = (tokens_read(policy, kind) for kind in (parse_intervention("negate"), None))
    np.testing.assert_array_equal(read[0], -plain[0])
    assert parse_intervention("negate[0:2]@cue_end..").tokens == (0, 2)


def test_a_reading_is_a_module_and_a_line(subject_of, cell_with, monkeypatch):
    code, text = example("Worked example: adding a reading")
    name, place = re.search(r'`"(\w+)": "(.+?)",`', text).groups()
    module = ModuleType(place.partition(":")[0])
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.MEASUREMENTS, name, place)
    one, subject = get_measurement(name), subject_of(cell_with(), 3)
    frame = one.read(subject)
    assert one.id == "drift@1" and set(one.columns) <= set(frame)
    assert frame["value"].iloc[0] == 0 < frame["value"].iloc[1:].min() and frame["n"].iloc[0] == 3
    moved = [np.linalg.norm(trace.memory[2] - trace.memory[0]) for trace in traces_of(subject)]
    assert frame["value"].iloc[2] == pytest.approx(np.mean(moved), rel=1e-6)


def test_every_probe_has_its_line_under_its_version():
    text, base = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8"), get_protocol("recall-color5-rh@1")
    told = re.findall(r"^\| `([a-z-]+@\d+)` \|", text, re.MULTILINE)
    assert sorted(told) == sorted(get_probe(name, base).id for name in (*MEASUREMENTS, *GRIDS))
