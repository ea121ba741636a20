"""The cameras of a robot that a policy sees, by their numbers.

Legend: V cameras of the robot.
"""

from __future__ import annotations

from muvla.config import DataConfig
from muvla.data.store import EpisodeStore
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError, unknown_name


def get_camera_numbers(store: EpisodeStore, data: DataConfig) -> tuple[int, ...]:
    """Returns the numbers, from 0, of the cameras that `data.cameras` chooses.

    Raises:
        MuvlaError: the robot lacks a chosen camera, nobody names its cameras, or all cameras are chosen in their order,
            which null says already.
    """
    cameras, count = data.cameras, store["images"].shape[1]
    if cameras is None:
        return tuple(range(count))
    names = get_camera_names(store)
    chosen = range(cameras) if isinstance(cameras, int) else [_get_number(camera, names, count) for camera in cameras]
    if list(chosen)[:count] == list(range(count)):
        raise MuvlaError(
            "data.cameras",
            got=cameras,
            expected=f"a part of the robot's {count} cameras, or null for all of them",
            remedy="set data.cameras to null",
        )
    if len(set(chosen)) < len(chosen):
        raise MuvlaError(
            "data.cameras",
            got=list(cameras),
            expected="different cameras",
            remedy=f"remove the number or the name of a camera that stands twice: {_describe(names, count)}",
        )
    return tuple(chosen)


def get_camera_names(store: EpisodeStore) -> tuple[str, ...]:
    """Returns the names of the robot's cameras in their order; () where the datasets do not name them alike."""
    names = {tuple(part.names.get("cameras", ())) or task_info(part.spec.task.name).cameras for part in store.parts}
    return names.pop() if len(names) == 1 else ()


def _get_number(camera: int | str, names: tuple[str, ...], count: int) -> int:
    if isinstance(camera, str):
        if camera in names:
            return names.index(camera)
        if names:
            raise unknown_name("data.cameras", camera, names)
    elif camera < count:
        return camera
    raise MuvlaError(
        "data.cameras",
        got=camera,
        expected=f"cameras of the robot: {_describe(names, count)}",
        remedy=f"choose among {_describe(names, count)}",
    )


def _describe(names: tuple[str, ...], count: int) -> str:
    return ", ".join(f"{i} ({name})" for i, name in enumerate(names)) or f"numbers 0 to {count - 1}"
