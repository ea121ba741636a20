"""Control: what two cells of a study may differ in, and the identity of a cell."""

import dataclasses

import pytest

from helpers.paths import ROOT
from muvla.config import canonical, dummy, ema, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from sweeps.cells import train_id
from sweeps.checks import undeclared_differences
from sweeps.costs import cost_rows
from sweeps.difference import difference
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.plan import NO_DATA_NOTE, NO_K_NOTE, coverage_lines, plan_text
from sweeps.predictions import Prediction
from sweeps.study import Study

FACTORS = ("memory.kind", "memory.m", "memory.alpha", "truncation")


@pytest.fixture
def study(base):
    return Study(
        name="small",
        title="a small study",
        base=base,
        variants={"none": no_memory(), "dummy": dummy(4), "K=8": tbptt(8, 4), "EMA": ema(0.1, 4)},
        factors=FACTORS,
        seeds=(0, 1),
        protocols=(get_protocol("recall-position3-rh@1"),),
        interventions=("zero",),
    )


def test_a_study_with_declared_differences_passes_and_seeds_are_the_outer_loop(study):
    study.check()
    assert [(c.cell.seed, c.variant) for c in study.cells()][:5] == [
        (0, "none"),
        (0, "dummy"),
        (0, "K=8"),
        (0, "EMA"),
        (1, "none"),
    ]


@pytest.mark.parametrize(
    "undeclared",
    [
        {"budget.slots": 8},
        {"budget.updates": 5},
        {"optimizer.lr": 1e-4},
        {"data.labels": "recorded"},
        {"data.dataset.episodes": 10},
        {"model.guard": "full"},
        {"model.chunk": 1},
        {"model.reserve": 9},
        {"model.size.width": 64},
    ],
    ids=str,
)
def test_an_undeclared_difference_is_refused_and_shown(study, undeclared):
    field, value = next(iter(undeclared.items()))
    variants = study.variants | {"odd": tbptt(2, 4) | undeclared}
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, variants=variants).check()
    assert info.value.field == "study small, variant 'odd'" and f"{field}: " in info.value.got
    assert repr(value) in info.value.got
    dataclasses.replace(study, variants=variants, factors=(*FACTORS, field)).check()


def test_two_variants_of_one_computation_are_refused(study):
    twice = study.variants | {"EMA 1.0": ema(1.0, 4), "K=1": tbptt(1, 4)}
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, variants=twice).check()
    assert info.value.field == "study small" and "EMA 1.0" in info.value.got and "K=1" in info.value.got


def test_matched_budgets_of_all_cells(study):
    """B, W, U and the frames are the same whatever K and α are."""
    budgets = {c.cell.budget for c in study.cells()}
    assert len(budgets) == 1 and budgets.pop().total_frames == 4 * 8 * 4


def test_a_declared_regime_lets_k_change_the_budget_and_nothing_else_does(study):
    """In the base or as a factor; the plan and the difference show what comes out of it."""
    variants = {"none": no_memory(), "K=8": tbptt(8, 4), "K=2": tbptt(2, 4)}
    published = dataclasses.replace(study, variants=variants, base=replace(study.base, {"budget.regime": "published"}))
    published.check()
    by_variant = {c.variant: c.cell for c in published.cells() if c.cell.seed == 0}
    assert difference(by_variant["K=8"], by_variant["K=2"]) == {"budget.window": (8, 2), "truncation": (8, 2)}
    rows = [line.split() for line in plan_text(published, None, None).splitlines()]
    assert ["none", "kind=none,", "m=0", "matched", "4", "8", "4", "1", "32", "128", "–"] in rows
    assert ["K=2", "truncation=2", "published", "4", "2", "4", "1", "8", "32", "–"] in rows
    assert NO_K_NOTE in plan_text(published, None, None) and NO_K_NOTE not in plan_text(study, None, None)
    frames = {"matched frames": tbptt(2, 4) | {"budget.regime": "matched_frames"}}
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, variants=study.variants | frames).check()
    assert "budget.regime" in info.value.got and info.value.field == "study small, variant 'matched frames'"
    both = dataclasses.replace(study, variants=study.variants | frames, factors=(*FACTORS, "budget.regime"))
    both.check()
    assert [
        "matched",
        "frames",
        "truncation=2,",
        "regime=matched_frames",
        "matched_frames",
        "4",
        "2",
        "16",
        "1",
        "8",
        "128",
        "–",
    ] in [line.split() for line in plan_text(both, None, None).splitlines()]
    same = {"K=8, published": tbptt(8, 4) | {"budget.regime": "published"}}
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(both, variants=variants | same).check()
    assert info.value.field == "study small"


def test_the_difference_of_two_cells_is_exact(study):
    by_variant = {c.variant: c.cell for c in study.cells() if c.cell.seed == 0}
    assert difference(by_variant["K=8"], by_variant["EMA"]) == {"memory.alpha": (1.0, 0.1), "truncation": (8, 1)}
    assert difference(by_variant["K=8"], by_variant["dummy"]) == {"memory.kind": ("tokens", "dummy")}
    assert difference(by_variant["none"], replace(by_variant["none"], {"truncation": 1})) == {}


def test_train_ids_depend_on_computation_and_data_alone(study, store, tmp_path):
    from muvla.data.collect import collect

    cells = [c.cell for c in study.cells()]
    assert len({train_id(c, store) for c in cells}) == len(cells)
    same = replace(cells[0], {"truncation": 1})
    assert train_id(same, store) == train_id(cells[0], store)
    other = collect(replace(store.spec, {"seed": 900}), tmp_path)
    assert train_id(cells[0], other) != train_id(cells[0], store)


def test_interventions_are_for_cells_with_memory_tokens(study):
    by_variant = {c.variant: list(study.conditions(c.cell)) for c in study.cells()}
    assert [k for _, k in by_variant["none"]] == ["none"]
    assert [k for _, k in by_variant["dummy"]] == [k for _, k in by_variant["K=8"]] == ["none", "zero"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"factors": ("memory.length",)}, "factors"),
        ({"factors": ("seed",)}, "factors"),
        ({"variants": {}}, "variants"),
        ({"seeds": ()}, "seeds"),
        ({"interventions": ("zero@0..",)}, "interventions"),
    ],
)
def test_bad_studies_are_refused(study, changes, field):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, **changes)
    assert info.value.field == f"study small, {field}"


def test_an_unknown_intervention_is_refused(study):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, interventions=("amnesia",))
    assert info.value.got == "amnesia"


@pytest.mark.parametrize("declared", [Study, Prediction])
def test_the_former_word_arms_is_answered_with_variants(declared):
    with pytest.raises(MuvlaError) as info:
        declared(name="small", arms={})
    assert info.value.field == f"{declared.__name__}: arms" and "variants" in info.value.remedy


def test_a_cells_intervention_has_one_name_too(study):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, base=replace(study.base, {"intervention": "zero@0.."})).check()
    assert info.value.field == "study small, intervention" and info.value.got == "zero@0.."


def test_narrowing(study):
    assert len(study.narrowed((1,), ("K=8",)).cells()) == 1
    with pytest.raises(MuvlaError) as info:
        study.narrowed((7,))
    assert info.value.field == "--seeds"
    with pytest.raises(MuvlaError) as info:
        study.narrowed(None, ("K=9",))
    assert info.value.field == "--variant" and "'K=8'" in info.value.remedy, "the nearest match"


def test_the_plan_shows_cells_budgets_differences_and_what_can_be_credited(study, store, data_root, tmp_path):
    study = dataclasses.replace(study, base=replace(study.base, {"budget.updates": 60}))
    ledger = Ledger(tmp_path, data_root)
    stores = ledger.opened(study)
    text = plan_text(study, ledger.entries(study, stores), stores)
    assert "4 variants × training seeds 0, 1 = 8 cells" in text
    assert "kind=none, m=0" in text and "1,920" in text and "0/2" in text
    assert "K=1 0.00, K=8 0." in text and "H=2 0." in text
    rows = {row[0]: row for row in cost_rows(study, stores)}
    assert rows["none"][1:4] == ["none", "0", "0"] and rows["none"][-1] == "0"
    assert rows["K=8"][1:5] == ["K=8", "384", "4", "0"] and rows["K=8"][-1] == "1,536", "4 tokens of 96 numbers"
    assert all(" ".join(row[2:]) in " ".join(text.split()) for row in rows.values())
    assert int(rows["K=8"][5].replace(",", "")) > int(rows["none"][5].replace(",", "")), "4 tokens more"
    without_data = plan_text(study, None, None)
    assert "1,920" in without_data and NO_DATA_NOTE in without_data


def test_the_plan_tells_where_blocks_are_counted_from(study, store, data_root, tmp_path):
    variants = {"K=4": tbptt(4, 4), "from the episode": tbptt(4, 4) | {"truncation_from": "episode"}}
    study = dataclasses.replace(study, variants=variants, factors=(*FACTORS, "truncation_from"))
    ledger = Ledger(tmp_path, data_root)
    stores = ledger.opened(study)
    pairs, _ = coverage_lines(ledger.entries(study, stores), stores)
    assert "K=4 from the episode 0.55, K=4 0.40" in pairs


def test_coverage_is_counted_per_dataset_and_budget(study, store, data_root, tmp_path):
    """Cells with other budgets or data are not described by the first one's stream."""
    longer = study.variants | {"longer": tbptt(2, 4) | {"budget.updates": 50}}
    study = dataclasses.replace(study, variants=longer, factors=(*FACTORS, "budget.updates"))
    ledger = Ledger(tmp_path, data_root)
    stores = ledger.opened(study)
    lines = coverage_lines(ledger.entries(study, stores), stores)
    assert len(lines) == 4 and "U=4," in lines[0] and "U=50," in lines[2]
    orders = {"K=8": tbptt(8, 4), "shuffled": no_memory() | {"data.order": "shuffled"}}
    orders |= {f"groups of {n}": {"data.order": "grouped", "data.group": n} for n in (3, 4)}
    by_order = dataclasses.replace(study, variants=orders, factors=(*FACTORS, "data.order", "data.group"))
    by_order.check()
    opened = ledger.opened(by_order)
    lines = coverage_lines(ledger.entries(by_order, opened), opened)
    told = [line[line.index("(RecallPosition3-v0") :].split(", ")[1] for line in lines[::2]]
    assert told == ["episodic", *(variant for variant in orders if variant != "K=8")]
    assert "of 0 in" in lines[2] and "no recurrent variant" in lines[2] and "of 0 delay" not in lines[3]
    assert "K=8 0." in lines[4] and lines[4].split(" (")[0] != lines[6].split(" (")[0]
    published = dataclasses.replace(study, base=replace(study.base, {"budget.regime": "published"}))
    lines = coverage_lines(ledger.entries(published, stores), stores)
    windows = [line[line.index("W=") :] for line in lines]
    assert windows == ["W=8)"] * 2 + ["W=1)"] * 2 + ["W=2)"] * 2, "K = W of its own for EMA and the longer one"


def test_a_changed_base_is_refused_where_variants_win(study):
    assert study.with_base({"optimizer.lr": 1e-4}).base.optimizer.lr == 1e-4
    with pytest.raises(MuvlaError) as info:
        study.with_base({"memory.m": 2})
    assert info.value.field == "--set memory.m" and all(variant in info.value.got for variant in study.variants)
    with pytest.raises(MuvlaError) as info:
        study.with_base({"seed": 2})
    assert info.value.field == "--set seed"


EXPERIMENTS = ROOT / "experiments"


@pytest.mark.parametrize(
    "file",
    [
        "recall_quick",
        "recall_quick/longer.py",
        "recall_quick/learning.py",
        "recall_budget",
        "mikasa_quick",
        "recall_causality",
        "recall_causality/mikasa.py",
        "mikasa_memory",
        "recall_width",
        "recall_chunks",
        *(f"memoryvla_ablations/{task}.py" for task in ("position3", "position3_delay2")),
        *(f"memory_ladder/{rung}.py" for rung in ("position3", "position3_delay5", "overwrite3", "sequence3")),
    ],
)
def test_the_shipped_studies_are_controlled(file):
    study = load_study(EXPERIMENTS / file)
    study.check()
    for item in study.cells():
        assert canonical(canonical(item.cell)) == canonical(item.cell)


def test_a_protocol_is_held_against_the_cameras_own_size(study):
    """No size declared is no licence: 32 pixels do not fit a model of 64."""
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, base=replace(study.base, {"model.size.image_size": 64})).check()
    assert info.value.field.endswith("image_size") and info.value.got == 32


def test_a_protocol_that_may_end_before_the_decision_is_refused_before_training(study):
    short = dataclasses.replace(study.protocols[0], name="short", step_limit=5)
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, protocols=(*study.protocols, short)).check()
    assert "step_limit" in info.value.field and info.value.got == 5


def test_the_longer_study_differs_in_its_length_alone():
    shorter, longer = (load_study(EXPERIMENTS / f) for f in ("recall_quick", "recall_quick/longer.py"))
    updates = shorter.base.budget.updates
    for a, b in zip(shorter.cells(), longer.cells(), strict=True):
        assert a.variant == b.variant and difference(a.cell, b.cell) == {"budget.updates": (updates, 2 * updates)}


def test_the_budget_study_differs_in_budgets_alone_and_shares_the_matched_cells():
    """Its matched variants are cells of the main job, trained once for both; the rest of a K differs in what its regime
    says."""
    main, study = (load_study(EXPERIMENTS / f) for f in ("recall_quick", "recall_budget"))
    quick, cells = ({c.variant: c.cell for c in s.cells() if c.cell.seed == 0} for s in (main, study))
    for variant, same in (("K=8, all three", "K=8"), ("K=2, matched", "K=2"), ("K=1, matched", "K=1")):
        assert difference(cells[variant], quick[same]) == {}
    for K in (1, 2):
        matched = cells[f"K={K}, matched"]
        in_frames, published = (
            difference(matched, cells[f"K={K}, {name}"]) for name in ("matched frames", "published")
        )
        assert in_frames == {"budget.updates": (400, 3200 // K), "budget.window": (8, K)}
        assert published == {"budget.window": (8, K)}


def test_fields_of_a_mechanism_follow_from_the_factor_memory_kind():
    """Cells of one mechanism still agree in every field that is no factor."""
    cell = load_study(ROOT / "experiments" / "recall_quick").base
    changed = replace(cell, {"memory.alpha": 0.5})
    assert list(undeclared_differences(cell, changed, ("memory.kind",))) == ["memory.alpha"]
    assert undeclared_differences(cell, changed, ("memory.kind", "memory.alpha")) == {}
