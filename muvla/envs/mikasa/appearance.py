"""What is changed of how a task looks, and of nothing else: the objects' colours, the camera, the light, a distractor.

The scene is built anew with the change in it, in the suite's own way; bodies, places and targets stay as they were.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from muvla.envs.colours import COLOURS, check_palette, get_colour
from muvla.envs.mikasa.tasks import MikasaTask

# In the suite's order (its COLOR_MAPPING and COLOR_PALETTE).
_COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "maroon", "olive", "teal")

CAMERA_MOVE = (0.0, 0.05, 0.0)  # metres, world frame: 5 cm sideways, looking in the same direction
DIMMED = 0.5  # of ManiSkill's own light
# A white cube of the suite's size, in front of the base camera and 20 cm from where cubes appear; nothing can touch it.
DISTRACTOR, DISTRACTOR_PLACE, DISTRACTOR_HALF_SIDE = "white", (0.1, 0.42, 0.02), 0.02


def colours(task: MikasaTask) -> tuple[str, ...]:
    """Of the objects, in the suite's order; empty where a task's objects are not told apart by colour."""
    if task.family == "RememberColor":
        return _COLOURS[: task.objects]
    return _COLOURS[:3] if task.family == "RememberShapeAndColor" else ()


def change_appearance(
    base: Any, task: MikasaTask, palette: tuple[str, ...] | None, shift: str | None
) -> tuple[str, ...]:
    """Changes a ManiSkill environment before its first episode; what is altered, in words, for provenance."""
    told = []
    if palette is not None:
        check_palette(task.name, colours(task), palette)
        _paint(base, task, [np.array([*get_colour(name), 255]) / 255 for name in palette])
        told.append(f"colours {', '.join(palette)}")
    if shift is not None:
        told.append(_SHIFTS[shift](base))
    if told:
        base.reset(options={"reconfigure": True})
    return tuple(told)


def _paint(base: Any, task: MikasaTask, rgba: list[np.ndarray]) -> None:
    """Into the tables that the suite takes its objects' colours from."""
    if task.family == "RememberColor":
        base.color_dict = dict(enumerate(rgba))
    else:
        for one in base.shape_color_dict.values():
            one["color"] = rgba[one["color_id"]]


def _move_camera(base: Any) -> str:
    pose = base._sensor_configs["base_camera"].pose.sp
    base._custom_sensor_configs = {"base_camera": {"pose": [*(pose.p + CAMERA_MOVE).tolist(), *pose.q.tolist()]}}
    return f"base camera moved by {CAMERA_MOVE} m"


def _dim_light(base: Any) -> str:
    def load(options: dict) -> None:
        """ManiSkill's own lights (3.0.1), dimmed."""
        base.scene.set_ambient_light([0.3 * DIMMED] * 3)
        for direction in ([1, 1, -1], [0, 0, -1]):
            base.scene.add_directional_light(direction, [DIMMED] * 3)

    base._load_lighting = load
    return f"light dimmed to {DIMMED:.0%}"


def _add_distractor(base: Any) -> str:
    load = base._load_scene

    def load_more(options: dict) -> None:
        import sapien
        from mani_skill.utils.building import actors

        load(options)
        actors.build_cube(
            base.scene,
            DISTRACTOR_HALF_SIDE,
            np.array([*COLOURS[DISTRACTOR], 255]) / 255,
            "distractor",
            body_type="static",
            add_collision=False,
            initial_pose=sapien.Pose(DISTRACTOR_PLACE),
        )

    base._load_scene = load_more
    return f"a {DISTRACTOR} cube at {DISTRACTOR_PLACE} m"


_SHIFTS = {"camera": _move_camera, "light": _dim_light, "distractor": _add_distractor}
