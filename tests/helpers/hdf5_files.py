"""LIBERO's, robomimic's and RoboMME's HDF5 for tests, written with h5py and without the readers."""

from __future__ import annotations

import json

import h5py
import numpy as np

from helpers.foreign_files import numbers, pixels

SENTENCE = "put the bowl on the plate"
CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")
GOALS = ("Press the button twice.", "Push the button two times.")


def gripper(steps: int) -> np.ndarray:
    """(T,) the simulator's gripper: -1 opens, 1 closes."""
    return np.where(np.arange(steps) % 2, 1, -1).astype(np.float32)


def libero(file, lengths=(3, 4, 5), sentence=SENTENCE, **attributes):
    """A file of LIBERO's layout; `attributes` are added to `data`. Returns the file."""
    with h5py.File(file, "w") as h:
        data = h.create_group("data")
        if sentence is not None:
            data.attrs["problem_info"] = json.dumps({"language_instruction": sentence})
        controller = {"type": "OSC_POSE", "control_delta": True}
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Libero", "env_kwargs": {"control_freq": 20, "controller_configs": controller}}
        )
        for name, value in attributes.items():
            data.attrs[name] = value
        for number, steps in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = np.column_stack([numbers(steps, number, 6), gripper(steps)])
            for i, camera in enumerate(CAMERAS):
                demo[f"obs/{camera}"] = pixels(steps, number + 1000 * i)
            # Different corners show whether an image is turned.
            demo[f"obs/{CAMERAS[0]}"][:, 0, 0] = 255
            demo["obs/ee_states"] = numbers(steps, 100 + number, 6)
            demo["obs/gripper_states"] = numbers(steps, 200 + number, 2)
            demo["obs/joint_states"] = numbers(steps, 300 + number, 7)
    return file


def robomme(folder, lengths=((2, 3), (0, 4)), environment="ButtonUnmask"):
    """`record_dataset_<EnvID>.h5` with (steps of the video, steps of the execution) per episode. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"record_dataset_{environment}.h5"
    with h5py.File(file, "w") as h:
        for number, (shown, executed) in enumerate(lengths):
            episode = h.create_group(f"episode_{number + 9}")  # ten comes after nine
            episode["setup/seed"] = 70 + number
            episode["setup/task_goal"] = np.array(list(GOALS), dtype=object)
            for step in range(shown + executed):
                place = episode.create_group(f"timestep_{step + 1}")
                for camera, seed in (("front_rgb", number), ("wrist_rgb", 1000 + number)):
                    place[f"obs/{camera}"] = pixels(shown + executed, seed)[step]
                place["obs/joint_state"] = numbers(shown + executed, 100 + number)[step]
                place["obs/eef_state"] = numbers(shown + executed, 200 + number, 6)[step]
                place["obs/gripper_state"] = numbers(shown + executed, 300 + number, 2)[step]
                place["action/joint_action"] = numbers(shown + executed, number, 8)[step]
                place["action/eef_action"] = numbers(shown + executed, 400 + number, 7)[step]
                place["info/is_video_demo"] = step < shown
    return file
