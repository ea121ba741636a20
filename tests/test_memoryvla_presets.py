"""MemoryVLA's presets: what their two versions differ in, and that they train at tiny size."""

import pytest

from helpers.paths import ROOT
from muvla.config import MemoryConfig
from muvla.config.memoryvla import (
    BENCHMARKS,
    CONFOUNDS,
    CUED,
    FACTORS,
    GROUPED,
    PROTOCOL_CONFOUNDS,
    RECIPES,
    STUDY_CONFOUNDS,
    ablations,
)
from muvla.config.serialization import difference, flatten, replace
from muvla.evaluation.catalog import get_protocols

EVERY = pytest.mark.parametrize("benchmark", BENCHMARKS)


@EVERY
def test_the_protocols_differ_in_the_listed_confounds_and_nothing_else(benchmark):
    published, controlled = (
        [protocol for name in names for protocol in get_protocols(name)] for names in RECIPES[benchmark].protocols
    )
    assert len(published) == len(controlled) and bool(published) == (benchmark != "fractal")
    for before, after in zip(published, controlled, strict=True):
        changed = difference(before, after)
        changed.pop("name", None)
        listed = {field: (c.published, c.controlled) for field, c in PROTOCOL_CONFOUNDS[benchmark].items()}
        assert changed == listed


def test_confounds_name_their_sections():
    text = (ROOT / "docs" / "memoryvla-recipes.md").read_text()
    protocols = [c for listed in PROTOCOL_CONFOUNDS.values() for c in listed.values()]
    for confound in (*(CONFOUNDS | GROUPED | CUED).values(), *protocols):
        assert f"\n- {confound.section} " in text
        assert confound.published != confound.controlled and confound.why
    for section, (published, here) in STUDY_CONFOUNDS.items():
        assert f"\n- {section} " in text and published and here


def test_ablations_are_distinct_and_change_declared_fields(base):
    bank = replace(base, {"memory.kind": "bank", "memory.place": "fuse"})
    cells = {name: replace(bank, changes) for name, changes in ablations(16).items()}
    assert len(set(cells.values())) == len(cells)
    for name, cell in cells.items():
        changed = set(difference(bank, cell))
        assert changed <= set(FACTORS) or name == "none"
    assert cells["none"].memory == MemoryConfig("none") and set(FACTORS) <= set(flatten(bank))
