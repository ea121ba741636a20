"""From imported LIBERO demonstrations to rows: against a simulator that is none, and, marked `sim`, task 0 of three
suites with rendered frames through the whole evaluator."""

from dataclasses import replace as changed
from functools import partial

import numpy as np
import pytest

from analysis.frames import best_constant_choice
from helpers import rlds_files as files
from helpers.libero import Fake
from muvla.cli.main import main
from muvla.config import DataConfig, DatasetConfig, TaskConfig, train_id
from muvla.config.serialization import replace
from muvla.data.store import open_store
from muvla.envs.libero import env as adapter
from muvla.envs.libero import simulator
from muvla.envs.libero.tasks import LIBERO_TASKS
from muvla.envs.registry import make_env
from muvla.evaluation.catalog import declared_protocols, declared_sets, get_protocol
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.records import read_rows, summarise
from muvla.runs.evaluate import Evaluator
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.utils.io import read_json

SUITES = ("object", "spatial", "goal")  # those whose task 0 the shared test data can show
INSTRUCTIONS = [LIBERO_TASKS[f"libero_{suite}-0"].instruction for suite in SUITES]
TASK = "libero_spatial-0"


def trained(base, tmp_path):
    """A cell of one update on demonstrations that name three tasks, as a published suite's name ten."""
    episodes = [
        files.episode(5, i, ("state", 8), language_instruction=[text.encode()] * 5)
        for i, text in enumerate(INSTRUCTIONS)
    ]
    directory = files.write(tmp_path / "libero" / "1.0.0", episodes, steps=files.LIBERO)
    place = ["--data", str(tmp_path / "data")]
    assert main(["data", "import", str(directory), "--schema", "libero", "--task", TASK, *place]) == 0
    dataset = DatasetConfig(TaskConfig(TASK), len(episodes), source="libero")
    cell = replace(base, {"data": DataConfig(dataset, labels="recorded"), "budget.updates": 1})
    store = open_store(tmp_path / "data", dataset)
    run = Run(tmp_path / "runs", tmp_path / "data", train_id(cell, store.sha256, None))
    train_cell(run, cell, store, "cpu")
    return run


def short(suite):
    one = get_protocol(f"libero-{suite}-0-rh@1")
    return changed(one, name=f"short-{suite}", episodes=1, slots=1, step_limit=4, image_size=32)


def test_an_import_is_trained_on_and_a_set_is_evaluated(base, tmp_path, monkeypatch, capsys):
    """Up to the folder of assets, which is there and empty."""
    for part in simulator.LIBERO.parts:
        (tmp_path / "assets" / part).mkdir(parents=True)
    monkeypatch.setenv("MUVLA_LIBERO_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr(adapter, "open_simulator", Fake)
    run = trained(base, tmp_path)
    assert capsys.readouterr().err == "", "the study knows the task, and its instruction is among them"
    monkeypatch.setattr("muvla.runs.evaluate.EvaluationContext", partial(EvaluationContext, env_factory=make_env))
    monkeypatch.setattr(Fake, "succeeds_at", 13)
    monkeypatch.setattr(Fake, "hopeless", "libero_goal")
    monkeypatch.setitem(declared_sets(), "short@1", tuple(short(suite) for suite in SUITES))
    place = ["--data", str(run.data), "--runs", str(run.root)]
    assert main(["evaluate", run.train, "--protocol", "short@1", *place]) == 0
    said = capsys.readouterr().out
    assert "short-object@1 none: n 1, success 1.000\n" in said, "and no word of touches"
    assert "short@1 none: mean success 0.667 over 3 of 3 tasks" in said
    rows = [row for path in run.rows.glob("*.jsonl") for row in read_rows(path)]
    assert {row.task: (row.steps, row.success_once) for row in rows} == {
        "libero_object-0": (3, True),
        "libero_spatial-0": (3, True),
        "libero_goal-0": (4, False),
    }
    assert {(row.group, row.target, row.choice, row.seed, row.error) for row in rows} == {("libero", None, -1, 0, None)}
    assert summarise(rows).choices == 0 and summarise(rows).touch_rate is None and summarise(rows).correct == 0
    assert np.isnan(best_constant_choice(rows))


@pytest.mark.slow
@pytest.mark.sim("libero")
def test_a_rendered_episode_of_three_suites_through_the_evaluator(base, tmp_path, libero_assets, monkeypatch):
    """Simulated and rendered in a process of its own; the rows' provenance tells renderer, assets and stand-ins."""
    run = trained(base, tmp_path)
    for suite in SUITES:
        one = short(suite)
        monkeypatch.setitem(declared_protocols(), one.id, one)
        (row,) = Evaluator(run).evaluate(one, "none")
        assert (row.task, row.error, row.steps, row.group) == (f"libero_{suite}-0", None, 4, "libero")
        assert row.success_once is False
        told = read_json(run.folder / "provenance" / f"{row.provenance}.json")
        assert told["simulator"] == simulator.backends()
        assert told["simulator"].startswith("mujoco_cpu, ") and told["simulator"].endswith("with 6 stand-ins")
        assert told["environment"]["renderers"] and len(told["environment"]["stand_in_assets"]) == 6
        assert told["environment"]["wrappers"] == []
        assert told["packages"]["hf-libero"] == "0.1.4" and told["packages"]["mujoco"]
