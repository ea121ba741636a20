"""The cost of the cells that are left, and the words of `muvla status` and `muvla sweep --plan --json` about it."""

import contextlib
import dataclasses
import json
import os
import pty
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.errors import refused
from helpers.studies import STUDY, at
from muvla.cli import status as status_verb
from muvla.cli.main import main
from muvla.cli.status import CLEAR, status
from muvla.utils.io import append_line
from sweeps import estimate as module
from sweeps.estimate import CALIBRATED, Cost, calibrate, estimate, finished_costs
from sweeps.ledger import Ledger
from sweeps.loader import load_study


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """(study file, root, entries, stores) of two cells that nobody has begun."""
    root = tmp_path_factory.mktemp("estimate")
    file = root / "study.py"
    file.write_text(STUDY.format(updates=4), encoding="utf-8")
    study, ledger = load_study(file), Ledger(root / "runs", root / "data")
    stores = ledger.stores(study)
    return file, root, ledger.entries(study, stores), stores


def test_a_cell_costs_what_finished_cells_of_its_variant_cost_by_its_frames(planned):
    """Here both cells have 128 frames; the other variant has the mean of all."""
    _, _, entries, _ = planned
    costs = {"none": Cost(3600, 2e9, 500, 64), "": Cost(7200, 1e9, 100, 128)}
    left = estimate(entries, ["planned", "planned"], costs)
    assert (left.cells, left.unknown, left.hours, left.memory, left.disk) == (2, 0, 4.0, 2e9, 600)
    assert estimate(entries, ["done", "planned"], costs).hours == 2.0
    nothing = estimate(entries, ["planned", "failed"], {})
    assert (nothing.cells, nothing.unknown, nothing.sources) == (1, 1, ())
    assert "not known" in nothing.line() and "2.0 h with 2 at once" in left.line(2)


def test_finished_cells_are_read_from_their_folders(planned, tmp_path):
    _, _, entries, _ = planned
    entry = dataclasses.replace(entries[0], run=dataclasses.replace(entries[0].run, root=tmp_path))
    for what, seconds in (("training", 10.0), ("evaluation few none", 5.0)):
        append_line(entry.run.folder / "timings.jsonl", {"what": what, "seconds": seconds, "provenance": "p"})
    append_line(entry.run.folder / "train.jsonl", {"update": 4, "loss": 0.1, "peak_memory_mb": 700})
    costs = finished_costs([entry], ["done"])
    assert costs["none"] == costs[""] and costs["none"].seconds == 15.0 and costs["none"].memory == 7e8
    assert costs["none"].frames == 128 and costs["none"].disk > 0
    assert finished_costs([entry], ["partial"]) == {}


def test_a_calibration_trains_a_few_updates_and_writes_no_folder(planned, monkeypatch):
    _, root, entries, stores = planned
    seconds = iter([0.0, 6.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    cost = calibrate(entries[0], stores["none"], "cpu")
    assert cost.seconds == 2.0 * 4 and cost.source == CALIBRATED and cost.memory > 1e8 and cost.disk > 1e5
    assert not list((root / "runs").glob("*/run.json"))


def test_plan_and_status_say_what_is_left(planned, capsys):
    file, root, _, _ = planned
    assert main(["sweep", str(file), "--plan", "--json", *at(root)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["left"]["cells"] == 2 and [cell["state"] for cell in plan["cells"]] == ["planned"] * 2
    assert main(["status", str(file), *at(root)]) == 0
    assert "2 cells are left" in capsys.readouterr().out
    assert main(["status", str(file), "--json", *at(root)]) == 0
    assert json.loads(capsys.readouterr().out)["left"]["unknown"] == 2


@pytest.mark.parametrize(("study", "json"), [(None, False), ("recall_quick", True)])
def test_watching_needs_a_study_and_no_json(study, json):
    with refused("--watch"):
        status(study, watch=True, json=json)


def everything(screen) -> str:
    """What a terminal shows until its other end is closed."""
    parts = []
    with contextlib.suppress(OSError):  # Linux reports the closed end as an error
        while part := screen.read(65536):
            parts.append(part)
    return b"".join(parts).decode()


def test_watching_draws_a_terminal_anew_until_all_cells_have_ended(planned, tmp_path, monkeypatch):
    file, root, entries, _ = planned
    looks: list[float] = []

    def end_a_cell(seconds: float) -> None:
        entry = entries[len(looks)]
        dataclasses.replace(entry.run, root=tmp_path).fail("failed", "a broken simulator")
        looks.append(seconds)

    monkeypatch.setattr(status_verb.time, "sleep", end_a_cell)
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as screen, ThreadPoolExecutor(1) as reader:
        text = reader.submit(everything, screen)
        with os.fdopen(slave, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            assert main(["status", str(file), "--watch", "--runs", str(tmp_path), "--data", str(root / "data")]) == 0
            monkeypatch.undo()
        *_, middle, last = text.result().split(CLEAR)
    assert looks == [status_verb.EVERY] * 2
    assert "1 planned" in middle and "1 failed" in middle and "2 failed" in last and "a broken simulator" in last
