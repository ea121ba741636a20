"""The stages of experiments/mikasa_memory: controlled, planned, and each from the weights of the stage before."""

import dataclasses

import pytest
import torch

from experiments.mikasa_memory import stages
from helpers.paths import ROOT
from muvla.config.serialization import flatten, replace
from muvla.data.mixture import open_data
from muvla.errors import MuvlaError
from muvla.runs.train import train_cell
from muvla.utils.io import read_lines
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.plan import plan_text

FOLDER = ROOT / "experiments/mikasa_memory"
FILES = ("study.py", "memory.py", "delays.py")


def without_start(study):
    variants = {
        name: {field: value for field, value in changes.items() if field != "start.checkpoint"}
        for name, changes in study.variants.items()
    }
    return dataclasses.replace(study, base=replace(study.base, {"start.checkpoint": None}), variants=variants)


@pytest.mark.parametrize("file", FILES)
def test_the_stages_are_controlled_and_planned(file):
    study = without_start(load_study(FOLDER / file))
    study.check()
    text = plan_text(study, None, None)
    assert "this design can conclude" in text and "1,024,000" in text
    assert len(study.seeds) >= 3


def test_the_recipe_is_the_declared_one():
    first, second, third = (load_study(FOLDER / file) for file in FILES)
    for study in (first, second, third):
        fields = flatten(study.base)
        assert (fields["model.proprio"], fields["data.cameras"], fields["optimizer.lr"]) == (False, ["wrist"], 1e-3)
        assert (fields["model.size.dino.width"], fields["model.size.siglip.layers"]) == (64, 3)
        data = study.base.data
        assert [spec.episodes for spec in data.datasets] == [1500] * len(data.datasets)
        assert data.held_out.episodes == 100 and data.held_out.seed >= 1500
    assert first.base.data.decision_steps == second.base.data.decision_steps == 2
    assert third.base.data.decision_steps is None and stages.FULL in [spec.task for spec in third.base.data.datasets]
    assert {item.cell.memory.kind for item in first.cells()} == {"none"}
    assert (third.base.budget.window, third.variants["tokens"]["truncation"]) == (16, 16)
    assert {prediction.intervention for prediction in third.predictions} == {"none", *third.interventions}


@pytest.mark.parametrize("file", FILES[1:])
def test_a_stage_without_the_stage_before_is_refused(file):
    with pytest.raises(MuvlaError) as info:
        load_study(FOLDER / file).check()
    assert ".starts" in info.value.field


@pytest.mark.sim
@pytest.mark.slow
def test_a_memory_goes_on_from_the_weights_of_the_first_stage(tmp_path):
    """Two demonstrations, one update each."""
    small = {
        "data.dataset.episodes": 2,
        "data.held_out.episodes": 1,
        "budget.updates": 1,
        "budget.slots": 2,
    }
    ledger, runs = Ledger(tmp_path / "runs", tmp_path / "data"), []
    for file, variant in (("study.py", "first_image"), ("memory.py", "tokens")):
        start = {"start.checkpoint": str(runs[-1].folder)} if runs else {}
        study = load_study(FOLDER / file).narrowed(seeds=(0,), variants=(variant,)).with_base(small | start)
        stores = ledger.stores(study)
        (entry,) = ledger.entries(study, stores)
        train_cell(entry.run, entry.item.cell, open_data(ledger.data, entry.item.cell.data), "cpu")
        (line,) = read_lines(entry.run.folder / "train.jsonl")
        assert line["loss_at_first_decision_held_out"] > 0
        runs.append(entry.run)
    first, second = (dict(run.load_policy().named_parameters()) for run in runs)
    near = [name for name in first if name.startswith("vision.") and first[name].dim() > 1]
    assert all(torch.allclose(first[name], second[name], atol=5e-3) for name in near)
    assert runs[1].cell.start.checkpoint == str(runs[0].folder.resolve())
