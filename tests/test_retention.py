"""Stored, kept, updated and used, on planted memories: content is found where it was planted, and not by controls."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.figures.base import Subject
from analysis.figures.measurement import MeasurementFigure
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.records import TakenMeasurement
from muvla.probes.registry import get_grid, get_measurement
from muvla.probes.retention import frame
from muvla.probes.traces import Trace

CUE, UPDATE, DELAY = 1, 3, 5  # last steps
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=40, slots=20)


def episodes(*, stored=True, updated=True, kept=True, used=True, n=63, update=True, right=None):
    """Traces whose memory holds the cued object at the cue's end and the target afterwards, where asked to."""
    rng, traces = np.random.default_rng(0), []
    for seed in range(n):
        cued, target = seed % 3, (seed // 3) % 3
        memory = rng.normal(size=(8, 1, 12)).astype(np.float32)
        for step, holds, label in ((CUE, stored, cued), (UPDATE, updated, target), (DELAY, kept, target)):
            memory[step, 0, label] += 12 * holds
        choice = target if used else (target + 1) % 3
        events = {"cue_end": CUE, "delay_end": DELAY} | ({"update": UPDATE} if update else {})
        measured = {"choice": choice} | ({} if right is None else {"right": right})
        labels = {"target": target} | ({"cued": cued} if update else {})
        traces.append(Trace(seed, {"tokens": memory}, memory, np.arange(8), np.zeros(8, int), labels, events, measured))
    return traces


def values(table, control):
    return table[table.control == control].set_index("measure")["value"].to_dict()


def test_each_measure_finds_what_was_planted_at_its_event_alone():
    empty = episodes(stored=False, updated=False, kept=False)
    for missing in ("none", "stored", "updated", "kept"):
        table = frame(episodes(**({} if missing == "none" else {missing: False})), empty)
        found = values(table, "none")
        for measure in ("stored", "updated", "kept"):
            assert found[measure] < 0.6 if measure == missing else found[measure] > 0.95
        for control in ("untrained", "shuffled"):
            assert max(values(table, control)[measure] for measure in ("stored", "updated", "kept")) < 0.6
    assert np.allclose(table[table.measure != "used"].chance, 1 / 3)


def test_used_is_the_choice_among_the_episodes_whose_target_was_kept():
    empty = episodes(stored=False, updated=False, kept=False)
    assert values(frame(episodes(), empty), "none")["used"] == 1
    table = frame(episodes(used=False), empty)
    assert values(table, "none")["used"] == 0 and values(table, "none")["kept"] > 0.95
    line = table[(table.measure == "used") & (table.control == "none")].iloc[0]
    assert line.n == round(63 * values(table, "none")["kept"]) and line.chance == 0
    assert values(frame(episodes(used=False, right=1), empty), "none")["used"] == 1, "any of several may be first"


def test_without_an_update_there_is_no_such_number():
    table = frame(episodes(update=False), episodes(update=False))
    line = table[(table.measure == "updated") & (table.control == "none")].iloc[0]
    assert line.n == 0 and np.isnan(line.value)
    assert values(table, "none")["kept"] > 0.95


def test_the_registered_probe_has_its_columns_and_refuses_a_release(subject_of, cell_with):
    probe = get_measurement("retention")
    assert probe.id == "retention@1" and set(probe.columns) <= set(frame(episodes(), episodes()))
    with pytest.raises(MuvlaError) as info:
        probe.read(replace(subject_of(cell_with(), 2), cell=None))
    assert info.value.field == "probe retention"


def test_the_figure_keeps_the_order_of_the_measures():
    lines = frame(episodes(), episodes()).assign(variant="K=8", seed=0, order=0)
    probe = get_measurement("retention")
    columns = [getattr(probe, name) for name in ("x", "y", "curve", "low", "high", "chance")]
    taken = TakenMeasurement(probe.id, "p@1", *columns, 63, "", "x", True)
    drawing = MeasurementFigure().draw(Subject(lines, "small", {"K=8": "C0"}, probe=taken))
    drawing.canvas.draw()
    labels = [label.get_text() for label in drawing.axes[-1].get_xticklabels()]
    assert labels == ["stored", "updated", "kept", "used"]


@pytest.mark.slow
def test_a_policy_is_read_beside_its_initial_values(subject_of, cell_with):
    subject = subject_of(cell_with(), 40)
    table = get_measurement("retention").read(subject)
    assert set(table.control) == {"none", "untrained", "shuffled"} and len(table) == 12
    trained, untrained = (values(table, control) for control in ("none", "untrained"))
    assert trained["kept"] == trained["kept"] and untrained["kept"] == untrained["kept"]


def test_delays_of_the_grid_keep_cue_and_sizes():
    base = get_protocol("recall-sequence3-rh@1")
    grid = get_grid("delay-length")(base)
    assert grid.id == "delay-length@1"
    fixed = [point for point in grid.points if dict(point.coordinates)["changed"] == "phases"]
    assert [point.protocol.task.delay for point in fixed] == [(n, n) for n in (1, 2, 5, 10, 20, 50, 100, 200)]
    assert {point.protocol.task.cue for point in fixed} == {None}
    assert fixed[-1].protocol.task.step_limit == 4 + 200 + 20
