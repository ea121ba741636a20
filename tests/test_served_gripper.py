"""The gripper's number of a served policy: its meaning comes from the checkpoint, its form from the checkpoint or a
client's need."""

from types import SimpleNamespace

import numpy as np
import pytest

from helpers import prismatic
from muvla.checkpoints.opening import open_checkpoint
from muvla.data.normalization import Statistics
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.errors import MuvlaError
from muvla.runs.released import released_run
from muvla.runs.run import Run
from muvla.serving.gripper import FORMS, Gripper, choose_gripper
from muvla.serving.regime import ActionQueue, Regime
from muvla.serving.serve import build_gate, open_slots, trained_conventions
from muvla.serving.sessions import Limits

OPENS, CLOSES = Conventions(gripper="positive_opens"), Conventions(gripper="positive_closes")


def statistics(scaled):
    return Statistics((-1.0, -1.0), (1.0, 3.0), (), (), (True, scaled), "test")


def answered(form, number, conventions=OPENS, scaled=False, outputs="open"):
    gripper = choose_gripper(form, SimpleNamespace(outputs=outputs), statistics(scaled), conventions)
    (action,) = ActionQueue(Regime(gripper=gripper)).take(np.array([[0.3, number]]))
    assert action[0] == 0.3
    return action[1]


@pytest.mark.parametrize(
    ("form", "opening", "closing"), [("raw", 0.8, 0.2), ("binary", 1, 0), ("closes", -1, 1), ("opens", 1, -1)]
)
def test_a_client_gets_the_form_that_its_robot_takes(form, opening, closing):
    assert (answered(form, 0.8), answered(form, 0.2)) == (opening, closing)
    if form in ("closes", "opens"):  # the same command of a policy whose number has the other meaning
        assert (answered(form, 0.2, CLOSES), answered(form, 0.8, CLOSES)) == (opening, closing)


def test_the_cut_of_a_scaled_number_is_the_middle_of_its_range():
    assert [answered("binary", number, scaled=True) for number in (0.9, 1.1)] == [0, 1]
    assert [answered("binary", number) for number in (0.4, 0.6)] == [0, 1]


@pytest.mark.parametrize(("outputs", "scaled", "form"), [("open", False, "raw"), ("clipped", False, "binary")])
def test_the_checkpoint_decides_the_form_by_default(outputs, scaled, form):
    assert choose_gripper(None, SimpleNamespace(outputs=outputs), statistics(scaled), OPENS).form == form
    assert choose_gripper(None, SimpleNamespace(outputs=outputs), statistics(True), OPENS).form == "raw"


def test_an_ensemble_averages_thresholded_numbers():
    queue = ActionQueue(Regime("ensemble", horizon=2, alpha=0.0, gripper=Gripper("closes", turn=True)))
    queue.take(np.array([[0.0, 0.0], [0.0, 0.9]]))
    assert queue.take(np.array([[0.0, 0.1], [0.0, 0.0]]))[0, 1] == -1  # 1 and 0 give a half: open


@pytest.mark.parametrize("form", ["closes", "opens"])
def test_a_form_needs_a_meaning_that_the_data_state(form):
    with pytest.raises(MuvlaError) as info:
        answered(form, 0.5, NOTHING_STATED)
    assert info.value.field == "--gripper"


def test_an_unknown_form_is_refused():
    with pytest.raises(MuvlaError) as info:
        answered("close", 0.5)
    assert info.value.field == "--gripper" and "close" not in FORMS


def config_of(run, form=None):
    return build_gate(open_slots(run, "cpu", 2), Regime(), Limits(), trained_conventions(run), form).config


def test_the_configuration_of_a_release_says_what_the_checkpoint_says(tmp_path):
    folder = prismatic.write(tmp_path / "release", "memoryvla")
    run = released_run(tmp_path / "runs", tmp_path / "data", "release", open_checkpoint(folder))
    config = config_of(run)
    assert config["statistics_key"] == "libero" and config["images"] and config["image_size"] == 28
    assert config["regime"]["gripper"]["form"] == "binary" and config["conventions"]["gripper"] == "positive_opens"
    closes = config_of(run, "closes")
    assert closes["conventions"]["gripper"] == "positive_closes" and closes["regime"]["gripper"]["turn"]


def test_the_conventions_of_a_cell_are_those_of_its_task_and_its_dataset(base, store, data_root, tmp_path):
    run = Run(tmp_path, data_root, "x")
    run.create(base, store)
    conventions = trained_conventions(run)
    assert conventions.action == "delta" and conventions.environment == base.data.datasets[0].task.name
    assert conventions.gripper is None
