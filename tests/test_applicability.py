"""A study's interventions are held against every variant's memory before anything is trained."""

import dataclasses

import pytest

from analysis.frames import NOT_APPLICABLE, NOT_RUN, tidy
from analysis.intervention_frames import paired_frame, undefined_pairs
from analysis.intervention_tables import short_difference_table
from analysis.report.committed import subjects
from analysis.report.summary import verdict_sentence
from analysis.tables import intervention_table, mark_not_applicable, short_intervention_table
from analysis.verdicts import verdict_frame
from helpers.committed import study_results
from helpers.errors import refused
from helpers.figures import draw, texts
from helpers.probe_study import BASE, LOWER
from muvla.config import dummy, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.errors import MuvlaError
from sweeps.applicability import NO_MEMORY, not_applicable, why_not_applicable
from sweeps.plan import plan_text
from sweeps.study import Study

FRAME = get_size("tiny").patches
COMMON = ("zero", "empty", "noise_matched", "transplant", "transplant_same", "freeze@cue_end..")
STACK = {"memory.kind": "frame_stack", "memory.k": 2, "memory.frame_tokens": 2 * FRAME}
VARIANTS = {
    "none": no_memory(),
    "dummy": dummy(4),
    "tokens": tbptt(8, 4),
    "gru": {"memory.kind": "gru"},
    "bank": {"memory.kind": "bank", "memory.perceptual_width": 8, "memory.capacity": 4},
    "frame_stack": STACK,
    "pixels": STACK | {"memory.recomputed": True},
}


@pytest.fixture
def study(base):
    """The variants of a ladder of memories, with interventions in common. Nothing here is trained."""
    wide = replace(base, {"model.reserve": 4 * FRAME})
    fields = ("kind", "m", "alpha", "init_std", "perceptual_width", "capacity", "k", "frame_tokens", "recomputed")
    factors = (*(f"memory.{name}" for name in fields), "truncation")
    return Study("ladder", "a ladder", wide, VARIANTS, factors, (0,), (BASE,), COMMON)


def conditions(study):
    return {item.variant: [name for _, name in study.conditions(item.cell)] for item in study.cells()}


def test_interventions_in_common_run_where_the_memory_can_take_them(study):
    run = conditions(study)
    assert run["none"] == ["none"]
    for variant in ("dummy", "tokens", "gru", "bank", "frame_stack"):
        assert run[variant] == ["none", *COMMON], variant
    assert run["pixels"] == ["none", "empty", "transplant", "transplant_same", "freeze@cue_end.."]


def test_the_plan_names_every_pair_that_is_not_run(study):
    text = plan_text(study, None, None)
    lines = [line for line in text.splitlines() if line.startswith("Not applicable, so not run: ")]
    assert all(sum(f"`{name}`" in line for line in lines) == 1 for name in COMMON) and len(lines) < len(COMMON)
    assert "none (no state to intervene on)" in lines[0]
    (zero,) = [line for line in lines if "`zero`" in line]
    assert "pixels (" in zero and "holds no floating-point number" in zero
    assert "Conditions in all: " not in text


@pytest.mark.parametrize("name", ["zero[0:9]", "lesion(7)", "shuffle_time"])
def test_an_intervention_that_no_variant_can_take_is_refused_before_training(study, name):
    few = dataclasses.replace(study.narrowed(variants=("none", "tokens")), interventions=(name,))
    with refused("study ladder, interventions") as info:
        few.check()
    assert info.value.got == name
    assert conditions(few) == {"none": ["none"], "tokens": ["none"]}


def test_the_reasons_are_those_of_the_evaluation(study):
    cells = {item.variant: item.cell for item in study.cells()}
    assert why_not_applicable(cells["none"], "zero") == NO_MEMORY
    assert why_not_applicable(cells["gru"], "noise_norm") and not why_not_applicable(cells["tokens"], "noise_norm")
    assert why_not_applicable(cells["bank"], "shuffle_time") == "" and why_not_applicable(cells["gru"], "none") == ""
    with pytest.raises(MuvlaError):
        why_not_applicable(cells["gru"], "nothing")
    assert not_applicable(study.cells(), ("none",)) == {}


def test_tables_verdicts_and_counts_say_not_applicable(study):
    two = dataclasses.replace(study.narrowed(variants=("tokens", "pixels")), interventions=("zero", "empty"))
    prediction = dataclasses.replace(LOWER, variants=("tokens", "pixels")).canonical()
    cells = study_results(two, lambda item: f"t{item.variant}").records
    undefined = [(cell.variant, name) for cell in cells for name in cell.not_applicable]
    assert undefined == [("pixels", "zero")]
    frame = tidy(cells)
    assert not len(frame[(frame["variant"] == "pixels") & (frame["intervention"] == "zero")]), "no rate, not even zero"
    wide = mark_not_applicable(intervention_table(frame), undefined)
    assert list(wide["zero"] == NOT_APPLICABLE) == [False, True]
    short = mark_not_applicable(short_intervention_table(frame), undefined)
    (column,) = [name for name in short if name.startswith("pixels")]
    assert list(short[column]).count(NOT_APPLICABLE) == 1
    verdicts = verdict_frame(cells, (prediction,))
    of_pixels = verdicts[verdicts["variant"] == "pixels"]
    assert set(of_pixels["together"]) == set(of_pixels["effect"]) == {NOT_APPLICABLE}
    assert "1 not applicable" in verdict_sentence(verdicts)


def test_paired_tables_and_figures_say_not_applicable_and_the_page_of_committed_files_too(study, tmp_path):
    results = study_results(study, lambda item: item.variant)
    cells = [cell for cell in results.records if cell.variant in ("tokens", "pixels")]
    pairs, undefined = paired_frame(cells), undefined_pairs(cells)
    assert ("pixels", "zero") in undefined and ("tokens", "zero") not in undefined
    table = mark_not_applicable(short_difference_table(pairs, "success"), undefined).set_index("intervention")
    assert table.loc["`zero`", "pixels"] == NOT_APPLICABLE and table.loc["`zero`", "tokens"] != NOT_APPLICABLE
    words = {axes.get_title(): texts(axes) for axes in draw("paired", pairs, undefined=undefined).axes}
    assert NOT_APPLICABLE in words["pixels"] and NOT_RUN not in words["pixels"] and not words["tokens"]
    assert NOT_RUN in {text for axes in draw("paired", pairs).axes for text in texts(axes)}
    tidy(cells).drop(columns="order").to_csv(tmp_path / "cells.csv", index=False)
    pairs.drop(columns="order").to_csv(tmp_path / "paired.csv", index=False)
    (committed,) = [subject for name, subject in subjects(study, tmp_path) if name == "paired"]
    assert ("pixels", "zero") in committed.undefined and ("tokens", "zero") not in committed.undefined
