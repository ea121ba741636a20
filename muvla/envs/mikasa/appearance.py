"""Changes of a task's appearance alone: the objects' colours, the camera, the light, a distractor.

The suite builds the scene again with the change in it. Bodies, places and targets stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from muvla.envs.colours import COLOURS, check_palette, get_colour
from muvla.envs.mikasa.tasks import MikasaTask

# In the order of the suite (COLOR_MAPPING and COLOR_PALETTE).
_COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "maroon", "olive", "teal")

CAMERA_MOVE = (0.0, 0.05, 0.0)  # metres, world frame: 5 cm sideways, with the same viewing direction
DIMMED = 0.5  # share of ManiSkill's light
# A white cube of the suite's size, in front of the base camera and 20 cm from the objects; it collides with nothing.
DISTRACTOR, DISTRACTOR_PLACE, DISTRACTOR_HALF_SIDE = "white", (0.1, 0.42, 0.02), 0.02


def colours(task: MikasaTask) -> tuple[str, ...]:
    """Colours of the objects in the order of the suite; () where objects do not differ by colour."""
    if task.family == "RememberColor":
        return _COLOURS[: task.objects]
    return _COLOURS[:3] if task.family == "RememberShapeAndColor" else ()


def change_appearance(
    base: Any, task: MikasaTask, palette: tuple[str, ...] | None, shift: str | None
) -> tuple[str, ...]:
    """Change a ManiSkill environment before its first episode.

    Args:
        base: the unwrapped environment.
        task: its task.
        palette: names of the objects' new colours, or None.
        shift: `camera`, `light`, `distractor` or None.

    Returns:
        The changes in words, for provenance.

    Raises:
        MuvlaError: the palette does not fit the task.
    """
    changes = []
    if palette is not None:
        check_palette(task.name, colours(task), palette)
        _paint(base, task, [np.array([*get_colour(name), 255]) / 255 for name in palette])
        changes.append(f"colours {', '.join(palette)}")
    if shift is not None:
        changes.append(_SHIFTS[shift](base))
    if changes:
        base.reset(options={"reconfigure": True})
    return tuple(changes)


def _paint(base: Any, task: MikasaTask, rgba: list[np.ndarray]) -> None:
    """Write the colours into the tables that the suite reads."""
    if task.family == "RememberColor":
        base.color_dict = dict(enumerate(rgba))
    else:
        for entry in base.shape_color_dict.values():
            entry["color"] = rgba[entry["color_id"]]


def _move_camera(base: Any) -> str:
    pose = base._sensor_configs["base_camera"].pose.sp
    base._custom_sensor_configs = {"base_camera": {"pose": [*(pose.p + CAMERA_MOVE).tolist(), *pose.q.tolist()]}}
    return f"base camera moved by {CAMERA_MOVE} m"


def _dim_light(base: Any) -> str:
    def load(options: dict) -> None:
        """ManiSkill's lights (3.0.1), dimmed."""
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
