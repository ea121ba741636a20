"""Chance and baselines: measured under the protocols, told in every table, and never taken for a trained cell."""

import json
import os
import re
import socket
from contextlib import nullcontext
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis import baselines as untrained
from analysis import tables
from analysis.frames import tidy
from analysis.report.contents import Report
from analysis.report.report import write_report
from helpers.errors import printed_field, refused
from helpers.rows import over, records, row
from muvla.cli import main as cli
from muvla.config import TaskConfig, no_memory, tbptt
from muvla.envs.registry import make_env, task_info
from muvla.errors import DiskError, Interrupted, MuvlaError, NotAMeasurement
from muvla.evaluation.baselines import BaselineActor, baseline_names, memoryless_ideal
from muvla.evaluation.catalog import get_protocol, get_protocols
from muvla.evaluation.protocol import unbounded
from muvla.evaluation.records import Baselines, EpisodeRow, result_id, summarise
from muvla.runs import conditions
from muvla.runs.baselines import finished_baselines, measure_baseline
from muvla.runs.find import find_run
from muvla.runs.results import result_rows
from muvla.runs.run import Run
from muvla.utils.locks import locked
from muvla.utils.rng import numpy_rng
from sweeps import baselines as swept
from sweeps.ledger import Ledger
from sweeps.sweep import SweepOptions, run_study

BASE = get_protocol("recall-position3-rh@1")
SHORT = replace(BASE, name="short", episodes=8, slots=3)


def run_of(name, root):
    return Run(root / "runs", root / "data", name)


def outcome(one: EpisodeRow) -> dict:
    timing = ("seconds", "environment_seconds", "provenance")
    return {name: value for name, value in asdict(one).items() if name not in timing}


def test_the_expert_succeeds_and_a_random_policy_hardly_ever(tmp_path):
    expert, random = (summarise(measure_baseline(run_of(name, tmp_path), SHORT)) for name in ("expert", "random"))
    assert (expert.success, expert.correct, expert.measured) == (8, 8, 8)
    assert random.success < 8 and random.touched < 8 and random.measured == 8


@pytest.mark.parametrize("one", [SHORT, replace(SHORT, regime="open_loop", h=8, tick="call", step_limit=9)], ids=str)
def test_a_random_episode_is_what_the_loop_by_hand_gives(tmp_path, one):
    """Anew at every step, also where policies run chunks open loop; keyed by the episode's seed and the step."""
    for found in measure_baseline(run_of("random", tmp_path), one):
        env = make_env(one.task)
        _, info = env.reset(seed=found.seed)
        steps, over = 0, False
        while not over:
            action = numpy_rng(found.seed, "random policy", steps).uniform(-1, 1, 2).astype(np.float32)
            _, _, terminated, truncated, info = env.step(action)
            steps += 1
            over = terminated or truncated or steps == one.step_limit
        assert (found.steps, found.choice, found.target) == (steps, info["choice"], info["target"])
        assert (found.success_once, found.success_at_end) == (info["success"],) * 2


def test_rows_do_not_depend_on_how_many_environments_step(tmp_path):
    alone, together = (
        sorted(map(str, map(outcome, measure_baseline(run_of("random", tmp_path / str(n)), SHORT, workers=n))))
        for n in (1, 3)
    )
    assert alone == together


def test_a_stop_is_continued_and_no_episode_is_run_twice(tmp_path):
    run, whole = run_of("random", tmp_path), measure_baseline(run_of("random", tmp_path / "whole"), SHORT)
    with pytest.raises(Interrupted):
        measure_baseline(run, SHORT, lambda: len(result_rows(run, SHORT, "none")) >= 3)
    assert len(result_rows(run, SHORT, "none")) == 3
    assert finished_baselines(run.root, run.data, SHORT).absent["random"] == "not run", "a part of a result is none"
    rows = measure_baseline(run, SHORT)
    assert sorted(map(str, map(outcome, rows))) == sorted(map(str, map(outcome, whole)))
    lines = (run.rows / f"{result_id('random', SHORT, 'none')}.jsonl").read_text().splitlines()
    assert len(lines) == 8
    measure_baseline(run, SHORT)
    assert [json.loads(line)["attempt"] for line in lines] == [1] * 8


def test_they_are_nobodys_training(tmp_path):
    """No train id, no training seed, no configuration; provenance as of any row."""
    run = run_of("expert", tmp_path)
    (one, *_) = measure_baseline(run, SHORT)
    assert (one.train, one.training_seed, one.intervention, one.protocol_hash) == ("expert", None, "none", SHORT.hash)
    assert not re.fullmatch("[0-9a-f]+", one.train), "no train id"
    assert not (run.folder / "run.json").exists()
    (record,) = run.provenance([one]).values()
    assert record["code"] and record["simulator"] is None and run.seconds()["training"] == 0
    with refused("RUN"):
        find_run(run.root, run.data, "expert")


def test_a_task_without_an_expert_has_none(tmp_path):
    libero = get_protocol("libero-spatial-0-rh@1")
    assert baseline_names(libero) == ("random",) and baseline_names(BASE) == ("random", "expert")
    with pytest.raises(MuvlaError) as info:
        BaselineActor("expert", libero, 1)
    assert info.value.field == "baseline"
    assert finished_baselines(tmp_path, tmp_path, libero).absent == {"random": "not run", "expert": "no expert"}


def test_the_memoryless_ideal_is_told_where_it_is_known():
    assert memoryless_ideal(BASE) == {"touch": 1.0, "choice": pytest.approx(1 / 3), "success": pytest.approx(1 / 3)}
    assert set(memoryless_ideal(get_protocol("recall-position3-ol8@1")).values()) == {None}, (
        "a chunk may outlast the delay"
    )
    mikasa = memoryless_ideal(get_protocol("mikasa-remember-color5-rh@1"))
    assert mikasa == {"touch": 1.0, "choice": pytest.approx(1 / 5), "success": None}, "several can be touched there"
    assert memoryless_ideal(get_protocol("mikasa-take-it-back-rh@1"))["choice"] is None


def test_why_nothing_bounds_a_policy_without_memory():
    free = replace(BASE, task=TaskConfig("ChainOfColors5-VLA-v0", physics="gpu"))
    long = replace(free, regime="open_loop", h=8, tick="call")
    assert [unbounded(one) for one in (BASE, get_protocol("recall-position3-ol8@1"), free, long)] == [
        "",
        "chunks run open loop",
        "the arm moves in cue and delay",
        "chunks run open loop and the arm moves in cue and delay",
    ]
    assert set(memoryless_ideal(free).values()) == {None}


def test_a_report_gives_the_reason_why_there_is_no_bound(cells, tmp_path, undrawn):
    free = replace(KNOWN, unbounded="the arm moves in cue and delay")
    out, _ = reported([replace(cell, chance={"p@1": None}) for cell in cells], tmp_path, free)
    text = (out / "report.md").read_text()
    assert free.unbounded in text and "open loop;" not in text


def test_the_bridge_twins_have_no_random_policy(tmp_path):
    twin = get_protocol("bridge-put-carrot-on-plate-in-scene-rh@1")
    assert baseline_names(twin) == ()
    assert finished_baselines(tmp_path, tmp_path, twin).absent == {"random": "–", "expert": "no expert"}


def test_what_is_complete_waits_for_nobody_and_a_stop_ends_waiting(tmp_path):
    run, other, said = run_of("random", tmp_path), replace(SHORT, name="other"), []
    lock = run.folder / "locks" / result_id("random", SHORT, "none")
    with locked(lock):
        assert len(measure_baseline(run, other)) == 8, "another protocol's lock"
        with pytest.raises(Interrupted):
            measure_baseline(run, SHORT, lambda: bool(said), say=said.append)
    (line,) = said
    assert line.startswith(f"short@1 random: {socket.gethostname()}:{os.getpid()} since ")
    rows = measure_baseline(run, SHORT)
    with locked(lock):
        assert measure_baseline(run, SHORT) == rows


def test_no_environment_is_opened_for_a_simulator_that_is_not_there(tmp_path, monkeypatch):
    def absent(_):
        raise MuvlaError("sim_backend", got="gpu", expected="a CUDA device", remedy="cpu")

    monkeypatch.setattr("muvla.runs.baselines.backends", absent)
    monkeypatch.setattr("muvla.runs.baselines.open_blind_env", lambda _: pytest.fail("opened"))
    with refused("sim_backend"):
        measure_baseline(run_of("random", tmp_path), SHORT)


@pytest.mark.parametrize("complete", [False, True])
def test_an_evaluation_asks_for_every_simulator_before_its_first_episode(monkeypatch, complete):
    asked = []

    def absent(task):
        asked.append(task.name)
        if task.name == "ShellGamePush-VLA-v0":
            raise MuvlaError("assets shellgame", got="no mug", expected="a mug", remedy="fetch it")

    monkeypatch.setattr(conditions, "has_result", lambda *_, **__: complete)
    monkeypatch.setattr(conditions, "backends", absent)
    with nullcontext() if complete else pytest.raises(MuvlaError) as info:
        conditions.require_runnable(None, get_protocols("mikasa5-rh@1"), ["none"], retry=False)
    assert complete or info.value.field == "assets shellgame"
    assert bool(asked) != complete, "what is complete is read anywhere"


def test_a_sweeps_time_limit_holds_in_its_baselines(tmp_path, monkeypatch):
    study = SimpleNamespace(check=lambda: None, protocols=[SHORT], baseline_protocols=[SHORT], name="x")
    monkeypatch.setattr(Ledger, "stores", lambda *_: {})
    monkeypatch.setattr(Ledger, "entries", lambda *_: [])
    monkeypatch.setattr("sweeps.sweep.plan_text", lambda *_: "")
    said, options = [], SweepOptions(processes=1, time_limit=1e-9, track=False)
    assert run_study(study, Ledger(tmp_path / "runs", tmp_path / "data"), options, said.append).not_run == []
    assert said[-1].startswith("The time limit was reached")


@pytest.mark.parametrize("error", [DiskError, NotAMeasurement])
def test_a_full_disk_and_a_broken_invariant_are_no_not_run(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error("disk", got="full", expected="room", remedy="free some")

    monkeypatch.setattr(swept, "measure_baseline", fails)
    with pytest.raises(error):
        swept.measure_baselines([SHORT], Ledger(tmp_path / "runs", tmp_path / "data"), lambda _: None)


def test_the_verb_takes_protocols_and_studies(tmp_path, capsys, monkeypatch):
    at = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    monkeypatch.setattr("sweeps.baselines.measure_baselines", lambda several, *_: print([p.id for p in several]) or [])
    assert cli.main(["baselines", BASE.id, "experiments/recall_quick", "mikasa5-ol8@1", *at]) == 0
    told = capsys.readouterr().out
    assert told.count(BASE.id) == 1 and told.count("-ol8@1") == 5
    for bad, field in (([BASE.id, "--workers", "0"], "--workers"), (["recall-x@1"], "protocol")):
        assert cli.main(["baselines", *bad, *at]) == cli.EXIT_BAD_INPUT
        assert printed_field(capsys) == field


def test_what_cannot_run_here_is_said_and_ends_nothing(tmp_path, monkeypatch):
    said, real = [], swept.measure_baseline

    def refuses(run, one, *arguments):
        if one.name == "broken":
            raise MuvlaError("renderer", got="none", expected="one", remedy="install one")
        return real(run, one, *arguments)

    monkeypatch.setattr(swept, "measure_baseline", refuses)
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    results = swept.measure_baselines([replace(SHORT, name="broken"), SHORT], ledger, said.append)
    assert [result.summary is None for result in results] == [True, True, False, False]
    assert "renderer" in results[0].error and results[3].error is None and results[3].baseline == "expert"
    assert said[0].startswith("broken@1 random: not run: renderer: got 'none'")
    assert said[3].startswith("short@1 expert: n 8, touch rate 1.000, choice accuracy given a touch 1.000, success 1.0")
    assert swept.without_simulator([SHORT, get_protocol("libero-spatial-0-rh@1")]) == [SHORT]


def test_json_lists_every_baseline_and_the_reason_of_a_missing_result(tmp_path, monkeypatch, capsys):
    summary = summarise(measure_baseline(Run(tmp_path, tmp_path, "expert"), SHORT))
    results = [
        swept.BaselineResult(SHORT, "random", None, "no renderer"),
        swept.BaselineResult(SHORT, "expert", summary),
    ]
    monkeypatch.setattr("sweeps.baselines.measure_baselines", lambda *_: results)
    assert cli.main(["baselines", BASE.id, "--json", "--runs", str(tmp_path)]) == 1
    random, expert = json.loads(capsys.readouterr().out)["results"]
    assert random == {"protocol": SHORT.id, "baseline": "random", "error": "no renderer"}
    assert expert["success_rate"] == 1 and expert["episodes"] == SHORT.episodes and expert["error"] is None


# --- tables -----------------------------------------------------------------------------------------------------------

EXPERT = [row(i, 0) for i in range(20)]
RECORD = {"code": "c1", "simulator": "physx_cpu", "environment": {"pictures": "none taken"}}
KNOWN = Baselines(
    {"expert": EXPERT}, {"random": "not run"}, {"touch": 1.0, "choice": 1 / 3, "success": None}, {"x": RECORD}
)


def rows_of(file):
    """(variant, other entries) of every row of a Markdown table."""
    lines = [[entry.strip() for entry in line.strip("|").split("|")] for line in file.read_text().splitlines()[2:]]
    return [(variant, entries) for variant, *entries in lines]


def reported(cells, tmp_path, baselines):
    report = Report("small", "a study", "muvla sweep x", "", (), baselines={"p@1": baselines})
    said = []
    write_report(cells, tmp_path / "out", report, say=said.append)
    return tmp_path / "out", "\n".join(said)


def test_every_table_ends_with_the_baselines(cells, tmp_path, undrawn):
    out, said = reported(cells, tmp_path, KNOWN)
    full = "1.00 [0.84, 1.00]"
    assert rows_of(out / "main.md")[-3:] == [
        ("random", ["–", "–", "not run", "not run", "not run"]),
        ("expert †", ["–", "20", full, full, full]),
        ("memoryless ideal", ["–", "–", "1.00 (expected)", "0.33 (expected)", "–"]),
    ]
    assert rows_of(out / "interventions.md")[-2:] == [
        ("expert †", ["–", full, "–"]),
        ("memoryless ideal", ["–", "0.33 (expected)", "–"]),
    ]
    text = (out / "report.md").read_text()
    assert f"{full} 20/20" in text
    assert "memoryless ideal" in (out / "main.md").read_text() and "memoryless ideal" in said
    assert "c1" in text and "physx_cpu" in text
    (line,) = pd.read_csv(out / "baselines.csv").to_dict("records")
    assert (line["policy"], line["protocol"], line["successes"], line["measured"]) == ("expert", "p@1", 20, 20)


def test_a_baseline_of_another_origin_is_marked_and_explained(cells, tmp_path, undrawn):
    there = {**RECORD, "environment": {"stand_in_assets": ["025_mug"]}}
    out, _ = reported(cells, tmp_path, replace(KNOWN, provenance={"x": there}))
    assert {"expert †", "random"} <= {variant for variant, _ in rows_of(out / "main.md")}
    text = (out / "report.md").read_text()
    for part in (
        "code version c1 (the cells': c0de)",
        "simulator physx_cpu",
        "stand-ins 025_mug (the cells': none)",
    ):
        assert part in text
    out, _ = reported(cells, tmp_path, replace(KNOWN, provenance={"x": cells[0].provenance["x"]}))
    assert "†" not in (out / "report.md").read_text() + (out / "main.md").read_text()


def test_seeds_stay_whole_numbers_and_budgets_blank(base):
    variants = [
        records(base, "K=2", tbptt(2, 4), 0, 18, 1, 1),
        records(base, "K=2, published", tbptt(2, 4) | {"budget.regime": "published"}, 0, 18, 1, 1),
    ]
    table = untrained.with_baselines(tables.main_table(tidy(variants)), Baselines(), {"success": "success"})
    assert list(table["W"]) == [8, 2, "–", "–", "–"] and list(table["seed"]) == [0, 0, "–", "–", "–"]
    assert list(table["success"])[2:] == ["not run", "not run", "–"]


def test_the_mean_over_a_set_needs_all_of_it(base):
    cells = [over(base, "none", no_memory(), 0, {"a@1": 1, "b@1": 4})]
    table = tables.set_table(tidy(cells), cells[0].sets)
    half = [row(i, 0 if i < 10 else 1) for i in range(20)]
    lost = [row(i, 0, error="RuntimeError: x") for i in range(4)]
    for of_b, said in (
        (Baselines({"expert": half}), "0.75 over 2"),
        (Baselines({"expert": half + lost}), "0.75 over 2 (+4 errors)"),
        (Baselines({"expert": lost}), "– (+4 errors)"),
        (Baselines(absent={"expert": "no expert"}), "no expert"),
        (Baselines(), "not run"),
    ):
        found = untrained.over_sets(table, cells[0].sets, {"a@1": KNOWN, "b@1": of_b})
        assert found[found["variant"] == "expert"]["none"].item() == said


@pytest.mark.sim
@pytest.mark.slow
def test_a_simulators_are_measured_without_pictures(tmp_path):
    one = replace(SHORT, name="sim", task=TaskConfig("RememberColor3-VLA-v0"), episodes=1, slots=1)
    run = run_of("expert", tmp_path)
    (row,) = measure_baseline(run, one)
    assert task_info(one.task.name).expert and row.success_once
    (record,) = run.provenance([row]).values()
    assert record["environment"]["pictures"] == "none taken" and record["simulator"].startswith("physx_cpu")
