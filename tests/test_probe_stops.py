"""A measurement stops at once, leaves no half result, and gives the same frame when it is taken again."""

import dataclasses
import shutil

import pandas as pd
import pytest

from helpers.policies import random_episode
from helpers.probes import BANK, MEASUREMENTS
from muvla.config.serialization import replace
from muvla.errors import Interrupted
from muvla.evaluation.catalog import get_protocol
from muvla.probes.base import Measurement, ScheduledMeasurement
from muvla.probes.jacobians import jacobian_norms
from muvla.probes.registry import get_measurement
from muvla.probes.traces import traces_of
from muvla.runs.evaluate import Evaluator
from muvla.runs.probe import frame_file, measurement_meta, take_measurement
from muvla.runs.run import Run
from muvla.runs.train import train_cell

SHORT = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="short", episodes=20, slots=4)
EPISODES = {"decoders": 20}  # the fewest that it takes; else 2


@pytest.fixture(scope="module")
def trained_run(base, store, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("stops"), store.path.parent, "cell")
    train_cell(run, replace(base, {"budget.updates": 1}), store, "cpu")
    return run


@pytest.fixture(scope="module")
def trained_bank(base, store, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("bank"), store.path.parent, "cell")
    train_cell(run, replace(base, {"budget.updates": 1, **BANK}), store, "cpu")
    return run


def copy_of(run, folder):
    shutil.copytree(run.folder, folder / run.train)
    return Run(folder, run.data, run.train)


class Calls:
    """Asks to stop at its `last` call and from then on."""

    def __init__(self, last=None):
        self.last, self.n = last, 0

    def __call__(self):
        self.n += 1
        return self.last is not None and self.n >= self.last


def times(run):
    return {path.name: path.stat().st_mtime_ns for path in (run.folder / "probes").rglob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_reading_that_is_stopped_leaves_no_half_result_and_is_taken_again(request, tmp_path, name):
    trained_run = request.getfixturevalue("trained_bank" if get_measurement(name).needs_times else "trained_run")
    one = ScheduledMeasurement(get_measurement(name), SHORT, EPISODES.get(name, 2))
    whole, calls = copy_of(trained_run, tmp_path / "whole"), Calls()
    expected = take_measurement(Evaluator(whole, should_stop=calls), one).read_bytes()
    assert calls.n > 3 * len(one.seeds), "it listens more often than once an episode"
    for last in (calls.n // 3, calls.n):
        run, asked = copy_of(trained_run, tmp_path / f"stopped at {last}"), Calls(last)
        with pytest.raises(Interrupted):
            take_measurement(Evaluator(run, should_stop=asked), one)
        assert asked.n == last, "it is not asked again"
        assert not frame_file(run, one).exists() and measurement_meta(run, one) is None
        assert take_measurement(Evaluator(run), one).read_bytes() == expected and measurement_meta(run, one) is not None


def test_what_was_recorded_until_a_stop_is_not_recorded_again(trained_run, tmp_path):
    read = lambda subject: pd.DataFrame([{"x": one.seed, "y": one.memory.mean()} for one in traces_of(subject)])  # noqa: E731
    run, one = (
        copy_of(trained_run, tmp_path),
        ScheduledMeasurement(Measurement("mean", 1, read, x="x", y="y"), SHORT, 6),
    )
    with pytest.raises(Interrupted):
        take_measurement(Evaluator(run, should_stop=Calls(20)), one)
    before = times(run)
    assert 0 < len(before) < 6
    with pytest.raises(Interrupted):
        take_measurement(Evaluator(run, should_stop=Calls(1)), one)
    take_measurement(Evaluator(run), one)
    assert len(times(run)) == 6 and before.items() <= times(run).items(), "those files are as they were"


def test_a_stopped_gradient_leaves_the_policy_as_it_was(trained_run):
    policy, encoded = random_episode(trained_run.cell, 5)
    asked, calls = [p.requires_grad for p in policy.parameters()], Calls(3)

    def check_stop():
        if calls():
            raise Interrupted

    with pytest.raises(Interrupted) as stopped:
        jacobian_norms(policy, encoded, check_stop=check_stop)
    assert stopped.value is not None and [p.requires_grad for p in policy.parameters()] == asked
