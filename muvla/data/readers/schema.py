"""Which feature of a published dataset is what of an episode here.

Legend: T steps, V cameras, h×w image, Q proprio dim, A action dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from muvla.data.episodes import Episode
from muvla.data.readers.rlds import Record, RldsDirectory
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError


@dataclass(frozen=True)
class Schema:
    name: str
    cameras: tuple[str, ...]  # features, the base camera first
    proprio: str
    proprio_dim: int  # Q
    action: str
    action_dim: int  # A
    instruction: str
    # The last action dimension is the gripper's: clipped to [0, 1] and turned over, so that 0 becomes 1.
    turn_gripper: bool = False
    pass_through: tuple[int, ...] = ()  # action dimensions that statistics leave as they are (spec 4.2)

    @property
    def features(self) -> tuple[str, ...]:
        return (*self.cameras, self.proprio, self.action, self.instruction)

    def check(self, directory: RldsDirectory) -> None:
        """Raises MuvlaError for a dataset that does not have these features, before anything is read."""
        wanted = {one: ("image", (None, None, 3)) for one in self.cameras}
        wanted |= {
            self.proprio: ("tensor", (self.proprio_dim,)), self.action: ("tensor", (self.action_dim,)),
            self.instruction: ("text", ()),
        }  # fmt: skip
        for path, (kind, shape) in wanted.items():
            found = directory.feature(path)
            fits = len(found.shape) == len(shape) and all(map(_fits, shape, found.shape))
            if found.kind != kind or not fits:
                raise MuvlaError(
                    f"{directory.path}: feature {path}", got=f"{found.kind} of shape {found.shape}",
                    expected=f"{kind} of shape {shape}", remedy=f"choose another schema than {self.name}",
                )  # fmt: skip


def _fits(wanted: int | None, size: int) -> bool:
    return wanted in (None, size)


_CAMERAS = ("steps/observation/image", "steps/observation/wrist_image")
_INSTRUCTION = "steps/language_instruction"
SCHEMAS = {
    # μVLA spec 4.4: proprio is xyz, roll-pitch-yaw and the sum of the finger positions, as in the environment here.
    "mikasa": Schema("mikasa", _CAMERAS, "steps/observation/proprio", 7, "steps/action", 7, _INSTRUCTION),
    # μVLA spec 4.5: state is position, axis-angle and the two finger positions; the images are turned by 180° already.
    "libero": Schema("libero", _CAMERAS, "steps/observation/state", 8, "steps/action", 7, _INSTRUCTION, True, (6,)),
}


def schema(name: str) -> Schema:
    """Raises MuvlaError for an unknown one."""
    if name not in SCHEMAS:
        raise MuvlaError("--schema", got=name, expected=f"one of {', '.join(SCHEMAS)}", remedy="correct the name")
    return SCHEMAS[name]


def demonstrations(
    directory: RldsDirectory, schema: Schema, task: str, image_size: int | None = None, skip: int = 0
) -> Iterator[Episode]:
    """The episodes but the first `skip`, with frames at `image_size` pixels, or as they are.

    Raises MuvlaError, with file and record, for numbers that are not finite, for an instruction that is empty or
    changes, and for cameras of different sizes that are left as they are.
    """
    for record in directory.records(schema.features, skip):
        values = record.values
        for path in (schema.proprio, schema.action):
            broken = np.flatnonzero(~np.isfinite(values[path]).all(axis=1))
            if len(broken):
                raise _bad(record, path, f"NaN or infinity in step {broken[0]} (from 0)", "finite numbers")
        action = values[schema.action].astype(np.float32)
        if schema.turn_gripper:
            action[:, -1] = 1 - np.clip(action[:, -1], 0, 1)
        yield Episode(
            images=_images(record, schema, image_size),
            proprio=values[schema.proprio].astype(np.float32),
            executed_action=None,
            recorded_action=action,
            phase=np.full(len(action), Phase.UNKNOWN, np.uint8),
            info={"task": task, "instruction": _instruction(record, schema.instruction)},
        )


def _images(record: Record, schema: Schema, image_size: int | None) -> np.ndarray:
    """(T, V, h, w, 3); raises MuvlaError if the store could not hold the cameras in one column."""
    images = [_sized(record.values[path], image_size) for path in schema.cameras]
    if len({one.shape for one in images}) > 1:
        raise MuvlaError(
            record.where, got=f"images of shapes {', '.join(str(one.shape[1:]) for one in images)}",
            expected="cameras of one size", remedy="bring them to one with --image-size",
        )  # fmt: skip
    return np.stack(images, axis=1)


def _sized(images: np.ndarray, size: int | None) -> np.ndarray:
    """(T, h, w, 3) → (T, size, size, 3), with the filter of the environments (`muvla.envs.mikasa`)."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    return np.stack([Image.fromarray(one).resize((size, size), Image.Resampling.LANCZOS) for one in images])


def _instruction(record: Record, path: str) -> str:
    texts = dict.fromkeys(record.values[path].tolist())
    text = next(iter(texts)).strip()
    if len(texts) > 1 or not text:
        got = f"several, {', '.join(map(repr, texts))}" if len(texts) > 1 else "an empty text"
        raise _bad(record, path, got, "one instruction per episode")
    return text


def _bad(record: Record, path: str, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        f"{record.where}: {path}", got=got, expected=expected,
        remedy="report it to whoever made the dataset; such an episode cannot be used",
    )  # fmt: skip
