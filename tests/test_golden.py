"""Train ids and protocol hashes of the committed studies: promises that no refactoring may move."""

import json

import pytest

from helpers.paths import ROOT
from muvla.config import train_id
from sweeps.loader import load_study

GOLDEN = json.loads((ROOT / "tests/golden/studies.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", GOLDEN)
def test_train_ids_and_protocol_hashes_of_committed_studies_stay(path):
    study = load_study(ROOT / path)
    ids = {c.label: train_id(c.cell, "data", "start" if c.cell.start.checkpoint else None) for c in study.cells()}
    assert ids == GOLDEN[path]["cells"]
    assert {p.id: p.hash for p in study.every_protocol} == GOLDEN[path]["protocols"]
