"""Mutated inputs to every parser: each ends in a result or in one error that names file and field.

`make test-fuzz` runs 250 inputs for each parser; `make test-heavy` runs 25, the ordinary tests run 2.
"""

import os

import pytest

from helpers.fuzz_run import run_cases
from helpers.fuzz_targets import TARGETS, prepare


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("fuzz") / "inputs"
    prepare(place)
    return place


def cases(count: int) -> list[tuple[str, int]]:
    return [(target.name, number) for number in range(count) for target in TARGETS]


@pytest.mark.slow
def test_a_small_part_of_the_mutated_inputs_ends_in_declared_errors(inputs, tmp_path):
    report = run_cases(inputs, tmp_path, cases(2))
    assert not report.findings, report.text()
    assert report.cases == 2 * len(TARGETS) and report.refused


@pytest.mark.fuzz
def test_mutated_inputs_end_in_declared_errors(inputs, tmp_path):
    count = int(os.environ.get("MUVLA_FUZZ_CASES", "25"))
    report = run_cases(inputs, tmp_path, cases(count), processes=2)
    print(report.text())
    assert not report.findings, report.text()
    assert report.cases == count * len(TARGETS) and report.refused > report.cases / 3
