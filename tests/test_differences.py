"""Interventions against their shams, and against a variant whose memory carries nothing."""

import dataclasses

import pytest

from analysis.differences import difference_frame, difference_table
from helpers.rows import records, row
from muvla.config import dummy, tbptt

CUE = 200  # episodes


def rows(right, wrong, name):
    choices = [0] * right + [1] * wrong + [-1] * (CUE - right - wrong)
    return [row(i, choice, kind=name) for i, choice in enumerate(choices)]


def cells(base, by_variant):
    """Three seeds of each variant. `by_variant`: variant → (change, intervention → (right, wrong))."""
    made = []
    for variant, (change, counts) in by_variant.items():
        for seed in range(3):
            cell = records(base, variant, change, seed, 1, 0, 0)
            by_condition = {("p@1", name): rows(*count, name) for name, count in counts.items()}
            made.append(dataclasses.replace(cell, rows=by_condition))
    return made


def test_an_intervention_that_lowers_success_without_memory_too_shows_no_difference(base):
    """Touch falls alike in both variants, and the accuracy of the rest stays: the memory has no part in the fall."""
    alike = {"none": (100, 100), "zero": (50, 50)}
    frame = difference_frame(cells(base, {"K=8": (tbptt(8, 4), alike), "dummy": (dummy(4), alike)}))
    of_memory = frame[(frame["variant"] == "K=8") & (frame["comparison"] == "reference")].set_index("quantity")
    assert of_memory.loc["touch", "value_low"] == pytest.approx(0) and of_memory.loc["touch", "against"] == "dummy"
    assert of_memory.loc["choice", "value_low"] < 0 < of_memory.loc["choice", "value_high"], "lost touches bound it"
    assert of_memory.loc["touch", "low"] < 0 < of_memory.loc["touch", "high"]
    assert set(frame[frame["variant"] == "dummy"]["comparison"]) <= {"sham"}, "no variant is its own reference"


def test_a_transplant_is_compared_with_its_sham_in_the_same_policy(base):
    counts = {"none": (190, 10), "transplant": (40, 160), "transplant_same": (188, 12)}
    frame = difference_frame(cells(base, {"K=8": (tbptt(8, 4), counts)}))
    assert set(frame["comparison"]) == {"sham"} and set(frame["intervention"]) == {"transplant"}
    choice = frame[frame["quantity"] == "choice"].iloc[0]
    assert choice["against"] == "transplant_same" and choice["seeds"] == 3
    assert choice["value_low"] == choice["value_high"] == pytest.approx(-0.74) and choice["high"] < -0.5
    table = difference_table(frame)
    assert table["first-touch accuracy given a touch"].iloc[0].startswith("-0.74 [")


def test_without_interventions_there_is_no_table(base):
    assert difference_frame(cells(base, {"K=8": (tbptt(8, 4), {"none": (1, 1)})})).empty
