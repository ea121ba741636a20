"""The features of a published dataset that become an episode's columns.

Legend: T steps, V cameras, h×w image, Q proprio dim, A action dim.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from muvla.data.readers.source import Record, Source
from muvla.data.store import Episode
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError


@dataclass(frozen=True)
class Schema:
    """Names the features of a dataset; `muvla.data.readers.formats` explains how to write your own."""

    name: str
    cameras: tuple[str, ...]  # features, the base camera first
    proprio: str
    proprio_dim: int | None  # Q; None accepts any length
    action: str
    action_dim: int | None  # A; None accepts any length
    instruction: str
    # The last action dimension is the gripper: it is clipped to [0, 1] and inverted, so 0 becomes 1.
    turn_gripper: bool = False
    pass_through: tuple[int, ...] = ()  # action dimensions that statistics do not scale (spec 4.2)
    # Features of this project's exports: executed actions, phases, and a JSON object of the other index fields.
    executed: str | None = None
    phase: str | None = None
    about: str | None = None
    conventions: Conventions = NOTHING_STATED  # of the actions after the gripper is turned

    @property
    def features(self) -> tuple[str, ...]:
        optional = (self.executed, self.phase, self.about)
        return (*self.cameras, self.proprio, self.action, self.instruction, *filter(None, optional))

    def check(self, source: Source) -> None:
        """Raises MuvlaError if the dataset lacks a feature or has it in another shape; reads no episode."""
        image, actions = ("image", (None, None, 3)), ("tensor", (self.action_dim,))
        required = [(camera, *image) for camera in self.cameras]
        required += [
            (self.proprio, "tensor", (self.proprio_dim,)),
            (self.action, *actions),
            (self.instruction, "text", ()),
        ]
        required += [(self.executed, *actions), (self.phase, "tensor", ()), (self.about, "text", ())]
        for path, content, shape in required:
            if path is None:
                continue
            feature = source.feature(path)
            fits = len(feature.shape) == len(shape) and all(map(_fits, shape, feature.shape))
            if feature.content != content or not fits:
                raise MuvlaError(
                    f"{source.path}: feature {path}",
                    got=f"{feature.content} of shape {feature.shape}",
                    expected=f"{content} of shape {shape}, by the schema {self.name}",
                    remedy="choose the dataset's schema with --schema, or name the feature with --camera, --proprio or "
                    "--action, which accepts any size",
                )


def _fits(required: int | None, size: int) -> bool:
    return required in (None, size)


def read_demonstrations(
    source: Source, schema: Schema, task: str, image_size: int | None = None, skip: int = 0
) -> Iterator[Episode]:
    """Yields the episodes after the first `skip`.

    Args:
        source: the opened dataset.
        schema: the features to read.
        task: name of the task.
        image_size: side of the frames in pixels; None keeps the size.
        skip: episodes to leave out.

    Raises:
        MuvlaError: with file and record, for numbers that are not finite, an empty or changing instruction,
            features of different lengths, a gripper to invert outside [-1, 1], or cameras of different sizes
            without `image_size`.
    """
    for record in source.records(schema.features, skip):
        lengths = {path: len(record.values[path]) for path in (*schema.cameras, schema.proprio, schema.action)}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise _bad(record, schema.action, f"steps {lengths}", "one number of steps for all features, at least 1")
        action = _numbers(record, schema.action)
        if schema.turn_gripper:
            if np.abs(action[:, -1]).max() > 1:
                got = f"a gripper command of {action[np.abs(action[:, -1]).argmax(), -1]:g}"
                raise _bad(record, schema.action, got, "a gripper command in [-1, 1]")
            action[:, -1] = 1 - np.clip(action[:, -1], 0, 1)
        yield Episode(
            images=_images(record, schema, image_size),
            proprio=_numbers(record, schema.proprio),
            executed_action=None if schema.executed is None else _numbers(record, schema.executed),
            recorded_action=action,
            phase=_phases(record, schema.phase, len(action)),
            info={
                **record.info,
                **_about(record, schema.about),
                "task": task,
                "instruction": _instruction(record, schema.instruction),
            },
        )


def _numbers(record: Record, path: str) -> np.ndarray:
    """Returns (T, n) float32."""
    values = record.values[path].astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise _bad(record, path, f"NaN or infinity in step {broken[0]} (from 0)", "finite numbers")
    return values


def _phases(record: Record, path: str | None, length: int) -> np.ndarray:
    """Returns (T,) uint8."""
    if path is None:
        return np.full(length, Phase.UNKNOWN, np.uint8)
    phases = record.values[path]
    if len(phases) != length or not np.isin(phases, [int(phase) for phase in Phase]).all():
        raise _bad(record, path, f"{sorted(set(phases.tolist()))}", f"a phase per step: {', '.join(map(repr, Phase))}")
    return phases.astype(np.uint8)


def _about(record: Record, path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    text = str(np.ravel(record.values[path])[0])
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise _bad(record, path, f"{text!r} ({error})", "a JSON object") from None


def _images(record: Record, schema: Schema, image_size: int | None) -> np.ndarray:
    """Returns (T, V, h, w, 3). Raises MuvlaError if the cameras have different sizes."""
    images = [_resize(record.values[path], image_size) for path in schema.cameras]
    if len({camera.shape for camera in images}) > 1:
        raise MuvlaError(
            record.where,
            got=f"images of shapes {', '.join(str(camera.shape[1:]) for camera in images)}",
            expected="cameras of one size",
            remedy="pass --image-size to give all cameras one size",
        )
    return np.stack(images, axis=1)


def _resize(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes (T, h, w, 3) to (T, size, size, 3) with the filter of the environments (`muvla.envs.mikasa`)."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    return np.stack([Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS) for image in images])


def _instruction(record: Record, path: str) -> str:
    texts = dict.fromkeys(np.ravel(record.values[path]).tolist())
    text = next(iter(texts), "").strip()
    if len(texts) > 1 or not text:
        got = f"several, {', '.join(map(repr, texts))}" if len(texts) > 1 else "an empty text"
        raise _bad(record, path, got, "one instruction per episode")
    return text


def _bad(record: Record, path: str, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        f"{record.where}: {path}",
        got=got,
        expected=expected,
        remedy="report the fault to the dataset's authors; this episode cannot be imported",
    )
