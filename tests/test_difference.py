"""The difference of two variants, in print: the declared factor and nothing else; and what else follows from
it."""

import pytest

from helpers.paths import ROOT
from muvla.config import canonical, dummy, no_memory, tbptt
from muvla.config.serialization import flatten
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from sweeps.cells import train_id
from sweeps.difference import UNKNOWN, difference_lines, difference_text
from sweeps.loader import load_study
from sweeps.study import Study

BUDGET = ROOT / "experiments" / "recall_budget"
VARIANTS = {
    "none": no_memory(),
    "dummy": dummy(4),
    "K=8": tbptt(8, 4),
    "K=2": tbptt(2, 4),
    "K=2, published": tbptt(2, 4) | {"budget.regime": "published"},
    "none again": no_memory() | {"memory.alpha": 0.5},
    "recorded scale": tbptt(8, 4) | {"data.statistics": "recorded"},
}


@pytest.fixture
def study(base):
    """One that no check has seen: two of its variants are one computation."""
    factors = ("memory.kind", "memory.m", "memory.alpha", "truncation", "budget.regime", "data.statistics")
    return Study("small", "a small study", base, VARIANTS, factors, (0, 1), (get_protocol("recall-position3-rh@1"),))


@pytest.fixture
def stores(store):
    return dict.fromkeys(VARIANTS, store)


def blocks(text):
    """Title of a block → its lines."""
    found, title = {}, None
    for line in text.splitlines()[1:]:
        if line.startswith("  "):
            found[title].append(line.strip())
        else:
            title = line.rstrip(":")
            found[title] = []
    return found


def test_the_declared_factor_and_nothing_else(study, stores, store):
    text = difference_text(study, stores, ("K=8", "K=2"))
    assert text.startswith("'K=8' | 'K=2' of small, the same for training seeds 0, 1")
    found = blocks(text)
    assert found["Declared"] == ["truncation: 8 | 2"] and found["Nothing else differs."] == []
    assert not [title for title in found if title.startswith(("Follows", "Declared, with"))]
    shared = " ".join(found["Shared"])
    for told in (store.sha256[:12], Statistics.from_store(store).id, "4, episodic", "updates U: 4", "frames F·U: 128"):
        assert told in shared
    cells = {item.label: item.cell for item in study.cells()}
    ids = [train_id(cells[f"{variant}, seed 0"], store) for variant in ("K=8", "K=2")]
    assert found["Not shared"] == [f"train id, seed 0: {ids[0]} | {ids[1]}"]


@pytest.mark.slow
def test_every_field_that_differs_is_printed(study, stores):
    """Field for field, of every pair of variants, against a comparison of the canonical cells that owes the function
    nothing."""
    cells = {item.variant: item.cell for item in study.cells() if item.cell.seed == 0}
    for a in VARIANTS:
        for b in VARIANTS:
            one, other = (flatten(canonical(cells[variant])) for variant in (a, b))
            expected = {f"{k}: {one[k]} | {other[k]}" for k in one if one[k] != other[k]}
            found = blocks(difference_text(study, stores, (a, b)))
            assert {*found.get("Declared", []), *found.get("Follows", [])} == expected


def test_across_budget_regimes_what_follows_is_told(study, stores):
    found = blocks(difference_text(study, stores, ("K=8", "K=2, published")))
    assert found["Declared"] == ["truncation: 8 | 2"]
    assert found["Declared, with no effect but what follows"] == ["budget.regime: matched | published"]
    assert found["Follows"] == ["budget.window: 8 | 2"]
    assert "frames F·U: 128 | 32" in found["Not shared"] and "updates U: 4" in found["Shared"]
    found = blocks(difference_text(study, stores, ("K=8", "dummy")))
    assert found["Declared"] == ["memory.kind: tokens | dummy"] and "Follows" not in found
    found = blocks(difference_text(study, stores, ("K=8", "none")))
    assert found["Follows"] == ["memory.init_std: 0.02 | 0.0"]


def test_one_computation_is_called_one(study, stores):
    text = difference_text(study, stores, ("none", "none again"))
    found = blocks(text)
    assert any("one computation" in title for title in found) and "Nothing else differs" not in text
    assert found["Declared, with no effect"] == ["memory.alpha: 1.0 | 0.5"] and "Not shared" not in found
    assert "one computation" in difference_text(study, stores, ("K=8", "K=8"))


def test_another_scale_is_not_shared(study, stores, store):
    found = blocks(difference_text(study, stores, ("K=8", "recorded scale")))
    assert found["Declared"] == ["data.statistics: executed | recorded"]
    own, recorded = Statistics.from_store(store).id, Statistics.from_store(store, "recorded").id
    assert f"statistics: {own} | {recorded}" in found["Not shared"]


def test_an_unknown_variant_is_refused_with_the_nearest(study):
    with pytest.raises(MuvlaError) as info:
        difference_text(study, None, ("K=8", "K=3"))
    assert info.value.field == "VARIANT" and "K=" in info.value.remedy


def test_without_data_the_declared_difference_is_known():
    study = load_study(BUDGET)
    text = difference_text(study, None, ("K=1, published", "K=2, matched"))
    assert "truncation: 1 | 2" in text and UNKNOWN in text and "train id" not in text.removesuffix(UNKNOWN)


def test_a_report_says_of_every_variant_how_it_differs(study):
    lines = difference_lines(study)
    assert len(lines) == len(VARIANTS) - 1
    differs = "memory.init_std 0.02 against 0.0; memory.kind tokens against none; memory.m 4 against 0"
    assert lines[1] == f"`K=8` against `none`: {differs}"
