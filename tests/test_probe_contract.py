"""Every registered probe, and a stranger's, keeps the contract of `muvla.probes.base`."""

import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.paths import ROOT
from helpers.probes import BANK, GRIDS, MEASUREMENTS
from muvla.config import TaskConfig, dummy, no_memory, tbptt
from muvla.config.serialization import content_hash
from muvla.errors import Interrupted, MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.interventions import parse_intervention
from muvla.probes.base import RESERVED, Grid, Measurement, Point, Probe
from muvla.probes.registry import PROBES, get_grid, get_measurement, get_probe, probe_names
from muvla.probes.traces import traces_of

BASE = get_protocol("recall-position3-rh@1")
SHORT = replace(BASE, name="short", episodes=20, slots=5)
COLOURED = replace(SHORT, name="coloured", task=TaskConfig("RecallColor3-v0"))  # every grid can change it
EPISODES = {"decoders": 20}  # the fewest that it accepts; else 2
PAGE = (ROOT / "docs/extending/probe.md").read_text(encoding="utf-8")


@pytest.fixture
def fresh(subject_of, cell_with, tmp_path):
    """`fresh(episodes, memory)` → a subject with a folder of its own each time, so that no trace is recorded yet."""
    made = []

    def subject(episodes, memory=None):
        made.append(tmp_path / str(len(made)) / "probe")
        made[-1].mkdir(parents=True)
        return replace(subject_of(cell_with(memory), episodes), folder=made[-1])

    return subject


def require_measurement(measurement, subject):
    """Hold a measurement against its contract on one subject."""
    calls, parameters = [], {name: p.clone() for name, p in subject.policy.state_dict().items()}
    frame = measurement.read(replace(subject, check_stop=lambda: calls.append(1)))
    assert isinstance(frame, pd.DataFrame) and len(frame) and set(measurement.columns) <= set(frame)
    drawn = frame.dropna(subset=[c for c in (measurement.x, measurement.curve) if c])
    assert len(drawn), "nothing to draw"
    values = drawn[measurement.y].dropna()
    if measurement.share:
        assert values.between(0, 1 + 1e-6).all()
    if measurement.low and measurement.high:
        bounded = drawn.dropna(subset=[measurement.y, measurement.low, measurement.high])
        assert (bounded[measurement.low] <= bounded[measurement.y] + 1e-9).all()
        assert (bounded[measurement.y] <= bounded[measurement.high] + 1e-9).all()
    assert all(p.equal(parameters[name]) for name, p in subject.policy.state_dict().items())
    assert not subject.policy.training and len(calls) > len(subject.seeds), "it cannot be stopped within an episode"
    pd.testing.assert_frame_equal(measurement.read(subject), frame)


def require_stops(measurement, subject):
    def stop():
        raise Interrupted

    with pytest.raises(Interrupted):
        measurement.read(replace(subject, check_stop=stop))


def require_grid(build):
    """Hold a grid against its contract on the recall suite."""
    grid = build(COLOURED)
    assert isinstance(grid, Grid) and build(COLOURED) == grid, "it builds other points when it is called again"
    protocols = {}
    for point in grid.points:
        assert protocols.setdefault(point.protocol.id, point.protocol) == point.protocol, "two protocols of one id"
        assert (point.protocol.seed, point.protocol.episodes) == (COLOURED.seed, COLOURED.episodes)
        assert point.intervention == "none" or parse_intervention(point.intervention).name == point.intervention
        assert not any(RESERVED.fullmatch(axis) for axis, _ in point.coordinates)
    conditions = [content_hash([p.protocol.hash, p.intervention, list(map(list, p.coordinates))]) for p in grid.points]
    assert len(set(conditions)) == len(conditions), "two points are one condition"


@pytest.mark.parametrize("name", probe_names())
def test_name_and_version_are_the_registry_s(name):
    base = get_protocol("recall-color3-rh@1")
    probe = get_probe(name, base)
    assert isinstance(probe, Probe) and probe.name == name and probe.id == f"{name}@{probe.version}"
    assert get_probe(f"{name}@{probe.version}", base) == probe


def test_every_probe_is_documented_under_its_version():
    text, base = (ROOT / "docs/probes.md").read_text(encoding="utf-8"), get_protocol("recall-color5-rh@1")
    documented = re.findall(r"^\| `([a-z-]+@\d+)` \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(get_probe(name, base).id for name in PROBES.members)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_reads_without_changing(fresh, name):
    measurement, episodes = get_measurement(name), EPISODES.get(name, 2)
    memory = BANK if measurement.needs_times else {}
    require_measurement(measurement, fresh(episodes, memory))
    require_stops(measurement, fresh(episodes, memory))


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_refuses_a_policy_that_it_cannot_read(subject_of, cell_with, name):
    measurement = get_measurement(name)
    refused = [dummy(4)] if measurement.needs_recurrence else []
    refused += [no_memory()] if measurement.needs_memory else []
    refused += [tbptt(8, 4), BANK | {"memory.emptied": True}] if measurement.needs_times else []
    for memory in refused:
        with pytest.raises(MuvlaError):
            measurement.read(subject_of(cell_with(memory), 2))


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_builds_the_same_conditions_every_time(name):
    require_grid(get_grid(name))


# --- a stranger's, and the examples of docs/extending/probe.md --------------------------------------------------------


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """An installed package with the two examples of the page: modules, and the entry points that name them."""
    package, about = tmp_path / "strange_probes", tmp_path / "strange_probes-1.0.dist-info"
    package.mkdir()
    about.mkdir()
    measurement, grid = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (package / "__init__.py").write_text("")
    (package / "drift.py").write_text(measurement)
    (package / "patience.py").write_text(grid)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-probes\nVersion: 1.0\n")
    lines = ["drift = strange_probes.drift:DRIFT", "patience = strange_probes.patience:patience"]
    (about / "entry_points.txt").write_text("\n".join([f"[{PROBES.group}]", *lines, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield about
    for name in [name for name in sys.modules if name.startswith("strange_probes")]:
        del sys.modules[name]


def test_a_stranger_s_probes_are_found_and_keep_the_contract(stranger, fresh):
    assert {"drift", "patience"} <= set(probe_names())
    measurement, subject = get_measurement("drift"), fresh(3)
    require_stops(measurement, subject)
    frame = measurement.read(subject)
    assert measurement.id == "drift@1" and set(measurement.columns) <= set(frame)
    assert frame["value"].iloc[0] == 0 < frame["value"].iloc[1:].min() and frame["n"].iloc[0] == 3
    moved = [np.linalg.norm(trace.memory[2] - trace.memory[0]) for trace in traces_of(subject)]
    assert frame["value"].iloc[2] == pytest.approx(np.mean(moved), rel=1e-6)
    require_grid(get_grid("patience"))
    assert get_probe("patience", SHORT).points[0].protocol.step_limit == 15


def test_the_registry_lines_of_the_page_are_those_of_the_examples():
    lines = dict(re.findall(r'`"([a-z-]+)": "(.+?)",`', PAGE))
    assert lines == {"drift": "muvla.probes.drift:DRIFT", "patience": "muvla.probes.patience:patience"}


@pytest.mark.parametrize("name", ["dynamic", "phase-lenght", "amnesia"])
def test_an_unknown_probe_is_one_error(name):
    with pytest.raises(MuvlaError) as refused:
        get_probe(name, BASE)
    assert refused.value.field == "probe" and refused.value.got == name


def test_a_grid_is_no_measurement_and_the_other_way_round():
    for find, name in ((get_measurement, "shift"), (get_grid, "dynamics")):
        with pytest.raises(MuvlaError) as refused:
            find(name)
        assert refused.value.field == "probe"


@pytest.mark.parametrize(
    ("probe", "field"),
    [
        (lambda: Measurement("Drift", 1, len, "x", "y"), "probe.name"),
        (lambda: Measurement("drift", 0, len, "x", "y"), "probe.version"),
        (lambda: Grid("g", 1, (), "x"), "probe g@1"),
        (lambda: Grid("g", 1, (Point(BASE, "none", (("x", 1),)),), "x", curve="c"), "probe g@1, point {'x': 1}"),
        (lambda: Grid("g", 1, (Point(BASE, "none", (("seed", 1),)),), "seed"), "probe g@1, point {'seed': 1}"),
    ],
)
def test_a_probe_that_cannot_be_drawn_or_filed_is_refused(probe, field):
    with pytest.raises(MuvlaError) as refused:
        probe()
    assert refused.value.field == field
