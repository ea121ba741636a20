"""One dataset, one short protocol and one study for tests, and how a command line names their folders."""

from __future__ import annotations

import dataclasses

from muvla.config import DatasetConfig, TaskConfig, tbptt
from muvla.evaluation.catalog import get_protocol
from sweeps.launchers.base import Job
from sweeps.ledger import Ledger
from sweeps.loader import load_study

DATASET = DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24)


# A tenth of a published protocol, in slots that are used more than once.
FEW = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="few", episodes=20, slots=8)


STUDY = """
from dataclasses import replace as replace_
from muvla.config import *
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study
base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=4),
    data=DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24)),
    memory=MemoryConfig("tokens", 4), truncation=8, budget=BudgetConfig(slots=4, window=8, updates={updates}),
)
few = replace_(get_protocol("recall-position3-rh@1"), name="few", episodes=20, slots=8)
study = Study("tiny_study", "a study for tests", base, {{"none": no_memory(), "K=8": tbptt(8, 4)}},
              ("memory.kind", "memory.m", "truncation"), (0,), (few,), ("zero",))
"""


def one_cell(study_file, tmp_path, updates=6):
    """A study of one cell: (entry, job)."""
    study = dataclasses.replace(load_study(study_file), variants={"K=8": tbptt(8, 4)})
    study = study.with_base({"budget.updates": updates})
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    stores = ledger.stores(study)
    (entry,) = ledger.entries(study, stores)
    return entry, Job("K=8", entry.run, entry.item.cell, tuple(entry.missing()), "cpu", 1)


def at(root):
    return ["--runs", str(root / "runs"), "--data", str(root / "data")]
