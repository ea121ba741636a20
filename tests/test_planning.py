"""Plans of many cells: the same cells and train ids as cell by cell, and no work for each training seed."""

import dataclasses

import pytest

from helpers.paths import ROOT
from helpers.studies import STUDY
from muvla.config import (
    Cell,
    DataConfig,
    DatasetConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    canonical,
    train_id,
)
from muvla.config.serialization import _replace_anew, replace, to_dict
from muvla.config.sizes import get_size
from muvla.evaluation.protocol import Protocol
from sweeps import checks
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.study import SEED


@pytest.mark.parametrize("name", ["recall_quick", "paper_table", "recall_budget", "mikasa_quick"])
def test_a_cell_is_the_cell_that_is_read_anew(name):
    study = load_study(ROOT / "experiments" / name)
    for item in study.cells():
        anew = _replace_anew(study.base, {**study.variants[item.variant], SEED: item.cell.seed})
        assert item.cell == anew and to_dict(item.cell) == to_dict(anew)
        assert train_id(item.cell, "data", "start") == train_id(anew, "data", "start")


def test_a_number_of_another_type_gives_the_same_train_id():
    """A whole number where the field holds a fraction is the same number, in the base and in a variant."""
    model = ModelConfig(size=get_size("tiny"), chunk=1, reserve=4)
    data = DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24))
    cells = [Cell(model, data, MemoryConfig("tokens", 4), optimizer=OptimizerConfig(lr=lr, clip=1)) for lr in (1, 1.0)]
    changed = [replace(replace(cell, {}), {"optimizer.clip": clip}) for cell in cells for clip in (1, 1.0)]
    assert len({train_id(cell, "data", None) for cell in [*cells, *changed]}) == 1
    assert all(type(cell.optimizer.lr) is type(cell.optimizer.clip) is float for cell in changed)


def test_the_canonical_cell_is_made_once_and_is_canonical():
    cell = load_study(ROOT / "experiments" / "recall_quick").base
    assert canonical(cell) is canonical(cell) is canonical(canonical(cell))
    again = replace(cell, {"seed": 9})
    assert canonical(again).seed == 9 and again != cell and canonical(cell).seed == cell.seed


def test_checks_look_at_one_seed_and_protocols_are_hashed_once(tmp_path, monkeypatch):
    file = tmp_path / "study.py"
    file.write_text(STUDY.format(updates=3), encoding="utf-8")
    study = dataclasses.replace(load_study(file), seeds=tuple(range(50)))
    seen = []
    monkeypatch.setattr(checks, "flatten", lambda cell: seen.append(cell) or {})
    monkeypatch.setattr("sweeps.checks.difference", lambda a, b: seen.append(b) or {})
    study.check()
    assert len(seen) <= 4 * len(study.variants), "no work for each of the 50 seeds"
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    entries = ledger.entries(study, ledger.stores(study))
    assert [entry.state for entry in entries] == ["planned"] * 100
    hashes = []
    plain = Protocol.hash.func
    monkeypatch.setattr(Protocol.hash, "func", lambda self: hashes.append(self) or plain(self))
    fresh = dataclasses.replace(study.protocols[0], episodes=10)
    assert fresh.hash == fresh.hash and len(hashes) == 1
