"""The whole path on the real simulator, at its smallest: collect, train, evaluate in processes, intervene, rows."""

import dataclasses

import pytest

from experiments.mikasa_quick.study import study
from muvla.config.serialization import replace
from muvla.envs.phases import NO_OP_PHASES
from muvla.runs.evaluate import Evaluator
from muvla.runs.train import train_cell
from sweeps.ledger import Ledger
from sweeps.sweep import SweepOptions, run_study

pytestmark = [pytest.mark.sim, pytest.mark.slow]


def test_from_demonstrations_to_rows(tmp_path):
    two = dataclasses.replace(study.protocols[0], name="two", episodes=2, step_limit=12)
    small = {"data.dataset.episodes": 2, "budget.updates": 2, "budget.slots": 2}
    short = dataclasses.replace(
        study,
        base=replace(study.base, small),
        protocols=(two,),
        interventions=("zero",),
        variants={"K=8": study.variants["K=8"]},
    )
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    (entry,) = ledger.entries(short, stores := ledger.stores(short, jobs=2))
    store = stores["K=8"]
    assert [line["seed"] for line in store.index] == [0, 1] and store.attempts == 2
    assert store["images"].shape[1:] == (2, 64, 64, 3) and store["proprio"].shape[1] == 7
    frozen = [p in [int(n) for n in NO_OP_PHASES] for p in store["phase"]]
    assert not store["executed_action"][frozen].any() and store["recorded_action"][frozen].any()

    train_cell(entry.run, entry.item.cell, store, "cpu")
    for kind in ("none", "zero"):
        rows = Evaluator(entry.run).evaluate(two, kind)
        assert [r.error for r in rows] == [None, None] and {r.seed for r in rows} == {two.seed, two.seed + 1}
        assert all(r.group == "mikasa" and 1 <= r.steps <= 12 for r in rows)
        assert all(
            r.first_decision_step == r.cue_length + r.delay_length or r.first_decision_step is None for r in rows
        )
    assert any(record["simulator"] for record in entry.records().provenance.values())
    assert entry.state == "done"
    result = run_study(short, ledger, SweepOptions(processes=1, track=False), lambda _: None)
    assert not result.failed and not result.not_run
