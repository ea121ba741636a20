"""Bridge's and Fractal's actions against the published transformations, and through an import."""

import numpy as np
import pytest

from helpers import rlds_files as files
from helpers.golden import FLOAT32, load_golden
from muvla.data.importer import import_config, import_dataset
from muvla.data.readers.formats import FORMATS
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.readers.standards import accumulate, binarize, relabel
from muvla.errors import MuvlaError

T = 6
SCHEMAS = FORMATS["rlds"].schemas
BRIDGE = {
    "observation": files.group({"image_0": files.image(), "state": files.tensor("float32", 7)}),
    "action": files.tensor("float32", 7),
    "language_instruction": {"text": {}},
}
FRACTAL = {
    "observation": files.group(
        {
            "image": files.image(),
            "base_pose_tool_reached": files.tensor("float32", 7),
            "gripper_closed": files.tensor("float32", 1),
            "natural_language_instruction": {"text": {}},
        }
    ),
    "action": files.group(
        {
            "world_vector": files.tensor("float32", 3),
            "rotation_delta": files.tensor("float32", 3),
            "gripper_closedness_action": files.tensor("float32", 1),
        }
    ),
}


def test_grippers_and_relabelled_actions_agree_with_the_published_functions():
    tensors = {name: t.numpy() for name, t in load_golden("memoryvla/f_data").tensors.items()}
    np.testing.assert_allclose(binarize(tensors["gripper.in"]), tensors["gripper.binarize"], atol=FLOAT32)
    np.testing.assert_allclose(1 - tensors["gripper.in"], tensors["gripper.invert"], atol=FLOAT32)
    np.testing.assert_allclose(accumulate(tensors["gripper.rel.in"]), tensors["gripper.rel2abs"], atol=FLOAT32)
    relabelled = relabel(tensors["bridge.action"], tensors["bridge.state"])
    np.testing.assert_allclose(relabelled, tensors["bridge.relabelled"], atol=FLOAT32)


def test_a_gripper_without_a_command_stays_half_open():
    assert accumulate(np.zeros(3, np.float32)).tolist() == [0.5, 0.5, 0.5]


def _bridge(steps):
    rng = np.random.default_rng(steps)
    return {
        "steps/observation/image_0": [files.png(image) for image in files.pixels(steps, steps)],
        "steps/observation/state": rng.normal(size=(steps, 7)).astype(np.float32),
        "steps/action": rng.uniform(0, 1, (steps, 7)).astype(np.float32),
        "steps/language_instruction": [files.INSTRUCTION.encode()] * steps,
    }


def _imported(tmp_path, name, steps, episodes):
    directory = RldsDirectory(files.write(tmp_path / name / "1.0.0", episodes, steps=steps))
    config = import_config(directory, "RecallPosition3-v0", None)
    return import_dataset(directory, SCHEMAS[name], config, tmp_path / "data")


def test_bridge_is_imported_without_its_first_and_last_step(tmp_path):
    episode = _bridge(T)
    store = _imported(tmp_path, "bridge", BRIDGE, [episode])
    assert store.lengths.tolist() == [T - 2] and store.pass_through == (6,)
    state, action = episode["steps/observation/state"], episode["steps/action"]
    np.testing.assert_allclose(store["recorded_action"][:, :6], np.diff(state[1:, :6], axis=0), atol=1e-6)
    np.testing.assert_allclose(store["recorded_action"][:, 6], binarize(action[1:, 6])[:-1])
    assert np.array_equal(store["images"][:, 0], files.pixels(T, T)[1:-1])
    assert np.array_equal(store["proprio"], state[1:-1])


def test_a_bridge_episode_without_a_step_left_is_refused(tmp_path):
    with pytest.raises(MuvlaError) as info:
        _imported(tmp_path, "bridge", BRIDGE, [_bridge(2)])
    assert info.value.field.endswith("steps/action")


def test_fractal_is_imported_with_an_absolute_gripper(tmp_path):
    command = np.array([0, 1, 0, -1, 0, 0], np.float32)
    rng = np.random.default_rng(0)
    draw = lambda size: rng.normal(size=(T, size)).astype(np.float32)  # noqa: E731
    episode = {
        "steps/observation/image": [files.png(image) for image in files.pixels(T, 0)],
        "steps/observation/base_pose_tool_reached": draw(7),
        "steps/observation/gripper_closed": draw(1),
        "steps/observation/natural_language_instruction": [files.INSTRUCTION.encode()] * T,
        "steps/action/world_vector": draw(3),
        "steps/action/rotation_delta": draw(3),
        "steps/action/gripper_closedness_action": command[:, None],
    }
    store = _imported(tmp_path, "fractal", FRACTAL, [episode])
    assert store.lengths.tolist() == [T] and store["proprio"].shape == (T, 8)
    assert store["recorded_action"][:, 6].tolist() == [1, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(store["recorded_action"][:, :3], episode["steps/action/world_vector"])
