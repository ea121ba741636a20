"""LIBERO's, robomimic's and RoboMME's HDF5, and ManiSkill's: contents, and everything that lies outside of a file."""

import json

import h5py
import numpy as np
import pytest

from helpers import foreign_files as files
from helpers import hdf5_files as made
from helpers.errors import refused_at
from muvla.data.conventions import get_conventions
from muvla.data.importer import import_config, import_dataset
from muvla.data.readers.formats import choose_schema, detect_format, open_source
from muvla.data.readers.schema import read_demonstrations
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError

TASK = "RecallPosition3-v0"
ASKED = ["sensor_data/base_camera/rgb"]


def read(path, name=None, **named):
    source = open_source(path)
    schema = choose_schema(source, name, **named)
    schema.check(source)
    return list(read_demonstrations(source, schema, TASK))


def test_libero_is_upright_and_its_gripper_opens_at_one(tmp_path):
    path = made.libero(tmp_path / "bowl_demo.hdf5")
    assert detect_format(path) == "robomimic"
    episodes = read(path)
    assert [len(episode.phase) for episode in episodes] == [3, 4, 5]
    for number, episode in enumerate(episodes):
        steps = len(episode.phase)
        assert episode.info["instruction"] == made.SENTENCE
        assert np.array_equal(episode.recorded_action[:, :6], files.numbers(steps, number, 6))
        assert episode.recorded_action[:, 6].tolist() == [1, 0, 1, 0, 1][:steps]
        states = files.numbers(steps, 100 + number, 6), files.numbers(steps, 200 + number, 2)
        assert np.array_equal(episode.proprio, np.column_stack(states))
        assert (episode.images[:, 0, -1, -1] == 255).all(), "the corner of the file's first pixel"
        assert np.array_equal(episode.images[:, 1], files.pixels(steps, number + 1000))


def test_libero_states_its_conventions(tmp_path):
    path = made.libero(tmp_path / "bowl_demo.hdf5", bddl_file_name="bddl_files/libero_goal/open_the_drawer.bddl")
    source = open_source(path)
    stated = get_conventions(source, choose_schema(source)).stated
    assert stated == {
        "environment": "open_the_drawer",
        "control_mode": "OSC_POSE",
        "action": "delta",
        "frame": "world",
        "gripper": "positive_opens",
        "fps": 20,
    }
    named = choose_schema(source, "robomimic", cameras=["agentview_rgb"], proprio=["joint_states"])
    assert get_conventions(source, named).gripper == "positive_closes"


@pytest.mark.parametrize("name", ["language_instruction", "lang"])
def test_an_attribute_of_an_episode_is_an_instruction(tmp_path, name):
    path = made.libero(tmp_path / "bowl_demo.hdf5", sentence=None)
    with pytest.raises(MuvlaError) as info:
        read(path)
    assert info.value.field.endswith("feature language_instruction")
    with h5py.File(path, "a") as file:
        for number, demo in enumerate(file["data"].values()):
            demo.attrs[name] = f"sentence {number}"
            demo.attrs["note"] = f"note {number}"
    assert [episode.info["instruction"] for episode in read(path)] == ["sentence 0", "sentence 1", "sentence 2"]
    (first, *_) = read(path, instruction="note")
    assert first.info["instruction"] == "note 0"
    assert {episode.info["instruction"] for episode in read(path, text="Said by hand.")} == {"Said by hand."}


def test_robomme_shows_its_video_in_the_cue(tmp_path):
    path = made.robomme(tmp_path)
    assert detect_format(path) == "robomme"
    first, second = read(path)
    assert first.phase.tolist() == [Phase.CUE] * 2 + [Phase.DECISION] * 3 and first.info["cue_length"] == 2
    assert second.phase.tolist() == [Phase.DECISION] * 4 and second.info["cue_length"] == 0
    assert first.info["instruction"] == made.GOALS[0] and first.info["seed"] == 70
    assert np.array_equal(first.recorded_action, files.numbers(5, 0, 8)) and first.proprio.shape == (5, 9)
    assert np.array_equal(first.executed_action, first.recorded_action)
    assert np.array_equal(second.images[:, 0], files.pixels(4, 1))
    (hand, _) = read(path, "robomme-eef")
    assert np.array_equal(hand.recorded_action, files.numbers(5, 400, 7))


def test_robomme_becomes_a_store_with_phases(tmp_path):
    source = open_source(made.robomme(tmp_path / "source"))
    store = import_dataset(source, choose_schema(source), import_config(source, TASK, "mme"), tmp_path)
    assert store.knows_phases and store.frames == 9
    assert store.conventions.shown | {"fps": None} == {
        "environment": "ButtonUnmask",
        "control_mode": "unknown",
        "action": "absolute",
        "frame": "joints",
        "gripper": "positive_opens",
        "units": "metric",
        "fps": None,
    }


def test_an_incomplete_step_of_robomme_is_named(tmp_path):
    path = made.robomme(tmp_path)
    with h5py.File(path, "a") as file:
        del file["episode_10/timestep_3/obs/wrist_rgb"]
    with refused_at("episode_10: timestep_3/obs/wrist_rgb", "no such array"):
        read(path)


def replaced(path, place, **with_what):
    """Puts a link, external storage or a virtual dataset in the place of an array."""
    with h5py.File(path, "a") as file:
        values = file[place][()]
        del file[place]
        (name, value), *_ = with_what.items()
        if name == "link":
            file[place] = value
        elif name == "external":
            value.write_bytes(values.tobytes())
            file.create_dataset(place, values.shape, values.dtype, external=[(str(value), 0, values.nbytes)])
        else:
            file["elsewhere"] = values
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(file["elsewhere"])
            file.create_virtual_dataset(place, layout)


HAND = "obs/sensor_data/hand_camera/rgb"


@pytest.mark.parametrize(
    ("place", "changes", "got"),
    [
        (f"traj_0/{HAND}", {"link": h5py.SoftLink("/traj_0/obs/sensor_data/base_camera/rgb")}, "soft link"),
        (f"traj_0/{HAND}", {"link": h5py.ExternalLink("other.h5", "/x")}, "external link"),
        (f"traj_0/{HAND}", {"link": h5py.SoftLink("/nowhere")}, "soft link"),
        (f"traj_1/{HAND}", {"link": h5py.SoftLink("/nowhere")}, "soft link"),
    ],
)
def test_a_camera_that_is_a_link_is_named_unless_nobody_asks_for_it(tmp_path, place, changes, got):
    path = files.maniskill(tmp_path)
    replaced(path, place, **changes)
    with refused_at("sensor_data/hand_camera/rgb", got):
        read(path, text="Pick it.")
    (first, *_) = read(path, text="Pick it.", cameras=ASKED)
    assert first.images.shape[1] == 1
    with pytest.raises(MuvlaError) as info:
        read(path, text="Pick it.", cameras=["sensor_data/hand_camera/rgb"])
    assert "sensor_data/hand_camera/rgb" in info.value.field


@pytest.mark.parametrize("number", [0, 2])
def test_a_camera_that_an_episode_lacks_is_named(tmp_path, number):
    path = files.maniskill(tmp_path)
    with h5py.File(path, "a") as file:
        del file[f"traj_{number}/{HAND}"]
    with pytest.raises(MuvlaError) as info:
        read(path, text="Pick it.")
    assert info.value.field.endswith("sensor_data/hand_camera/rgb")
    assert len(read(path, text="Pick it.", cameras=ASKED)) == 3


@pytest.mark.parametrize("what", ["external", "virtual"])
@pytest.mark.parametrize("number", [0, 1])
def test_values_outside_of_the_file_are_refused(tmp_path, what, number):
    path = files.maniskill(tmp_path)
    replaced(path, f"traj_{number}/actions", **{what: tmp_path / "bytes"})
    with pytest.raises(MuvlaError) as info:
        read(path, text="Pick it.")
    assert f"traj_{number}" in info.value.field and "actions" in info.value.field


def test_an_episode_that_is_a_link_is_refused(tmp_path):
    path = files.maniskill(tmp_path)
    with h5py.File(path, "a") as file:
        del file["traj_1"]
        file["traj_1"] = h5py.SoftLink("/traj_0")
    with pytest.raises(MuvlaError) as info:
        read(path, text="Pick it.")
    assert "traj_1" in info.value.field


def test_a_declared_size_is_not_believed(tmp_path):
    path = files.maniskill(tmp_path)
    with h5py.File(path, "a") as file:
        del file["traj_0/actions"]
        file.create_dataset("traj_0/actions", (3, 2**28), "f4", chunks=(1, 2**14))
    with pytest.raises(MuvlaError) as info:
        read(path, text="Pick it.")
    assert info.value.field.endswith("actions")


def test_groups_that_contain_themselves_end(tmp_path):
    path = files.maniskill(tmp_path)
    with h5py.File(path, "a") as file:
        file["traj_0/obs/again"] = file["traj_0/obs"]
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert "traj_0" in info.value.field


def test_pictures_of_another_dtype_are_no_camera(tmp_path):
    path = files.maniskill(tmp_path)
    with h5py.File(path, "a") as file:
        values = file[f"traj_0/{HAND}"][()]
        del file[f"traj_0/{HAND}"]
        file[f"traj_0/{HAND}"] = values.astype(np.float32)
    with pytest.raises(MuvlaError) as info:
        read(path, text="Pick it.", cameras=["sensor_data/hand_camera/rgb"])
    assert info.value.field.endswith("feature sensor_data/hand_camera/rgb")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda entries: entries["episodes"][0].update(elapsed_steps="3"), "episodes[0]: elapsed_steps"),
        (lambda entries: entries.update(episodes={}), "episodes"),
        (lambda entries: entries["env_info"]["env_kwargs"].update(control_mode=7), "env_info.env_kwargs.control_mode"),
        (lambda entries: entries["episodes"][1].update(control_mode="pd_joint_pos"), "control_mode"),
    ],
)
def test_the_json_of_maniskill_is_checked(tmp_path, change, place):
    beside = files.maniskill(tmp_path).with_suffix(".json")
    description = json.loads(beside.read_text())
    change(description)
    beside.write_text(json.dumps(description))
    with pytest.raises(MuvlaError) as info:
        open_source(beside.with_suffix(".h5"))
    assert info.value.field.endswith(f"{beside}: {place}")


def test_the_content_of_a_path_without_a_dataset_is_named(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["observations/qpos"] = np.zeros((3, 7))
    for path, got in ((tmp_path / "other.h5", "observations"), (tmp_path / "gone", "does not exist")):
        with refused_at("PATH", got):
            open_source(path)
    made.libero(tmp_path / "below.hdf5")
    with pytest.raises(MuvlaError) as info:
        open_source(tmp_path)
    assert info.value.field == "PATH" and "below.hdf5" in info.value.remedy
    with pytest.raises(MuvlaError) as info:
        open_source(tmp_path / "below.hdf5", "maniskill")
    assert info.value.field == "--format" and "robomimic" in info.value.remedy


def test_a_heap_at_which_the_library_does_not_end_is_refused(tmp_path, monkeypatch):
    """The second text of a heap claims to end behind the heap; libhdf5 then searches for the next text for ever."""
    path = made.libero(tmp_path / "x.hdf5")
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    first = int.from_bytes(content[heap + 24 : heap + 32], "little")
    second = heap + 32 + -(-first // 8) * 8
    content[second + 9] = 14
    path.write_bytes(content)
    monkeypatch.setattr("muvla.data.readers.apart.SECONDS", 1.0)
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert info.value.field == f"{path}: data"
