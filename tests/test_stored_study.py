"""A study of every mechanism: trained, evaluated, intervened upon, probed, reported; an export is refused by name."""

import pandas as pd
import pytest

from muvla.cli.main import main
from muvla.errors import MuvlaError
from muvla.runs.evaluate import Evaluator
from muvla.runs.export import export
from muvla.runs.probe import take_measurement
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

STUDY = """
from dataclasses import replace
from muvla.config import *
from muvla.config.sizes import get_size
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.registry import get_measurement
from helpers.probe_study import BASE
from sweeps.study import Study
FEW = replace(BASE, task=replace(BASE.task, cue=(3, 3), delay=(3, 3)))  # a donor has the recipient's lengths
BANK = {"memory.kind": "bank", "memory.perceptual_width": 8, "memory.capacity": 4}
base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=8),
    data=DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24)),
    memory=MemoryConfig("tokens", 4), truncation=8, budget=BudgetConfig(slots=4, window=8, updates=3),
)
variants = {
    "bank": BANK,
    "bank, emptied": BANK | {"memory.emptied": True},
    "fifo": {"memory.kind": "feature_fifo", "memory.place": "fuse", "memory.capacity": 4},
    "gru": {"memory.kind": "gru", "memory.width": 16},
    "fast weights": {"memory.kind": "fast_weights", "memory.width": 16, "memory.place": "modulate"},
    "stack": {"memory.kind": "frame_stack", "memory.frame_tokens": 8},
    "first frame": {"memory.kind": "first_frame", "memory.frame_tokens": 8},
}
FACTORS = ("kind", "m", "alpha", "init_std", "perceptual_width", "capacity", "emptied", "place", "streams", "layers",
           "heads", "time_code", "fusion", "consolidation", "stored", "details", "detached", "width", "decay", "k",
           "stride", "recomputed", "frame_tokens", "frame")
study = Study("stores", "a study of stores", base, variants, (*(f"memory.{f}" for f in FACTORS), "truncation"), (0,),
              (FEW,), ("skip_read", "zero", "empty@2", "transplant"),
              (ScheduledMeasurement(get_measurement("retrieval"), FEW, 2),))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    (root / "study.py").write_text(STUDY)
    ledger = Ledger(root / "runs", root / "data")
    result = run_study(load_study(root), ledger, SweepOptions(processes=1, track=False), lambda _: None)
    assert [entry.state for entry in result.entries] == ["done"] * 7, [entry.run.failure for entry in result.entries]
    return root, {entry.item.variant: entry for entry in result.entries}


@pytest.mark.slow
def test_every_mechanism_is_evaluated_intervened_upon_and_probed(place):
    _, entries = place
    conditions = {("few@1", name) for name in ("none", "skip_read", "zero", "empty@2", "transplant")}
    for name, entry in entries.items():
        assert set(entry.records().rows) == (conditions if name != "bank, emptied" else {("few@1", "none")})
    assert [scheduled.id for scheduled in entries["bank"].records().measurements] == ["retrieval@1"]
    assert not any(entry.records().measurements for name, entry in entries.items() if name != "bank")


@pytest.mark.slow
def test_the_probe_adds_up(place):
    _, entries = place
    table = pd.read_csv(entries["bank"].run.folder / "probes" / "retrieval@1-few@1.csv", keep_default_na=False)
    assert set(table["stream"]) == {"perceptual", "cognitive"}
    mass = table[(table["measure"] == "mass") & (table["n"] == 2)]
    sums = mass.astype({"value": float, "uniform": float}).groupby(["stream", "since_cue"])[["value", "uniform"]].sum()
    whole = sums.iloc[(sums["uniform"] - 1).abs().to_numpy() < 1e-6]
    assert len(whole) and (whole["value"] - 1).abs().max() < 1e-5, "the mass on all phases is 1"
    assert set(mass["phase"]) >= {"CUE", "DELAY"} and set(mass["curve"]) >= {"perceptual: CUE", "cognitive: DELAY"}
    ages = table[table["measure"] == "mass by age"]["age"].astype(int)
    assert ages.min() == 1 and ages.max() > 4, "merged entries keep the time of their oldest write"
    alive = table[table["measure"] == "alive"]["value"].astype(float)
    merges = table[table["measure"] == "merges"]["value"].astype(float)
    assert alive.min() == 0 and alive.max() == 4 and merges.max() > 0
    assert table[table["measure"] == "gate"]["value"].astype(float).between(0, 1).all()


@pytest.mark.slow
def test_what_a_mechanism_cannot_do_is_refused_by_name(place, tmp_path):
    _, entries = place
    for entry in entries.values():
        with pytest.raises(MuvlaError) as info:
            export(entry.run, tmp_path / entry.run.train, "recall")
        assert info.value.field == "memory.kind"
    measurement = entries["bank"].study.measurements[0]
    with pytest.raises(MuvlaError) as info:
        take_measurement(Evaluator(entries["fifo"].run), measurement)
    assert info.value.field == "probe retrieval"


@pytest.mark.slow
def test_the_report_has_every_mechanism(place):
    root, entries = place
    command = ["report", str(root), "--runs", str(root / "runs"), "--data", str(root / "data"), "--out"]
    assert main([*command, str(root / "out")]) == 0
    text = (root / "out" / "report.md").read_text()
    assert all(variant in text for variant in (*entries, "skip_read", "transplant"))
    assert (root / "out" / "probe-retrieval-few.png").exists()
