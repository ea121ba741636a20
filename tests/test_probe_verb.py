"""`muvla probe`: a grid's points one by one, of which one that never fires costs nothing but itself."""

import dataclasses
import json

import pytest

from muvla.cli.main import main
from muvla.config import no_memory
from muvla.config.serialization import replace
from muvla.evaluation.catalog import declared_protocols, get_protocol
from muvla.probes.base import Grid, Point
from muvla.probes.registry import PROBES
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.utils.io import read_json

FEW = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="four", episodes=4, slots=2)
LATE = "zero@first_decision+14"  # an episode ends before


def late(base):
    kinds = ("none", LATE, "zero")
    return Grid("late", 1, tuple(Point(base, kind, (("at", i),)) for i, kind in enumerate(kinds)), x="at")


def narrow(base):
    return Grid("narrow", 1, tuple(Point(base, kind, (("at", i),)) for i, kind in enumerate(("none", "drop"))), x="at")


@pytest.fixture
def probe(base, store, tmp_path, monkeypatch, capsys):
    """`probe(changes)` → (exit status, lines on stdout) of the grid and a measurement of a changed cell."""
    for name in ("late", "narrow"):
        monkeypatch.setitem(PROBES.members, name, f"{__name__}:{name}")
    monkeypatch.setitem(declared_protocols(), FEW.id, FEW)

    def run(changes, *names):
        train = Run(tmp_path / "runs", store.path.parent, "cell")
        train_cell(train, replace(base, {"budget.updates": 1, **changes}), store, "cpu")
        where = ["--runs", str(tmp_path / "runs"), "--data", str(store.path.parent), "--device", "cpu"]
        status = main(["probe", "cell", *names, "--protocol", FEW.id, *where])
        return train, status, capsys.readouterr().out.splitlines()

    return run


def test_a_point_that_never_fires_is_told_and_the_others_go_on(probe):
    run, status, said = probe({}, "late", "gradients")
    assert status == 0, "it says nothing against the cell, nor the probe"
    head, plain, silent, zeroed, reading = said
    assert head == "late@1: 3 of 3 conditions"
    assert plain.startswith("  at 0, none: n 4") and zeroed.startswith("  at 2, zero: n 4")
    assert silent.startswith(f"  at 1, {LATE}: never fired: ") and "fired in none of 4 episodes" in silent
    assert reading.startswith("gradients@1: ")
    (note,) = run.rows.glob("*.never.json")
    assert "fired in none of 4 episodes" in read_json(note)["got"] and not run.failure
    assert len(list(run.rows.glob("*.jsonl"))) == 2 and len(list(run.rows.glob("*.invalid"))) == 1
    rows = {path: path.stat().st_mtime_ns for path in run.rows.iterdir()}
    _, again, repeated = probe({}, "late", "gradients")
    assert (again, repeated) == (0, said), "and is told again"
    assert {path: path.stat().st_mtime_ns for path in run.rows.iterdir()} == rows, "without an episode"
    grid, measurement = json.loads("\n".join(probe({}, "late", "gradients", "--json")[2]))["probes"]
    assert [point["at"] for point in grid["points"]] == [0, 1, 2] and grid["points"][0]["episodes"] == 4
    assert [point["error"] is None for point in grid["points"]] == [True, False, True]
    assert measurement["probe"] == "gradients@1" and measurement["file"].endswith(".csv")


def test_without_a_memory_the_points_without_intervention_are_left(probe):
    run, status, said = probe(no_memory(), "late")
    assert status == 0 and said[0] == "late@1: 1 of 3 conditions" and len(said) == 2
    assert len(list(run.rows.iterdir())) == 1


def test_a_point_that_the_mechanism_cannot_take_is_left_out_and_named(probe):
    """A bank that is read at the head has no MEMORY tokens to drop."""
    bank = {"memory.kind": "bank", "memory.place": "fuse", "memory.m": 0, "memory.perceptual_width": 8}
    run, status, said = probe(bank, "narrow")
    assert status == 0 and said[0] == "narrow@1: 1 of 2 conditions" and len(said) == 3
    assert said[1].startswith("  drop not applicable: a memory of 0 tokens")
    assert len(list(run.rows.iterdir())) == 1
