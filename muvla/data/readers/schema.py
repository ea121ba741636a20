"""Which feature of a published dataset is what of an episode here.

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
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError


@dataclass(frozen=True)
class Schema:
    name: str
    cameras: tuple[str, ...]  # features, the base camera first
    proprio: str
    proprio_dim: int | None  # Q; None: as it is
    action: str
    action_dim: int | None  # A
    instruction: str
    # The last action dimension is the gripper's: clipped to [0, 1] and turned over, so that 0 becomes 1.
    turn_gripper: bool = False
    pass_through: tuple[int, ...] = ()  # action dimensions that statistics leave as they are (spec 4.2)
    # What only exports from here tell: what was executed, the phases, and a JSON object of the rest of an index line.
    executed: str | None = None
    phase: str | None = None
    about: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        told = (self.executed, self.phase, self.about)
        return (*self.cameras, self.proprio, self.action, self.instruction, *filter(None, told))

    def check(self, source: Source) -> None:
        """Raises MuvlaError for a dataset that does not have these features, before anything is read."""
        image, actions = ("image", (None, None, 3)), ("tensor", (self.action_dim,))
        wanted = [(one, *image) for one in self.cameras]
        wanted += [
            (self.proprio, "tensor", (self.proprio_dim,)),
            (self.action, *actions),
            (self.instruction, "text", ()),
        ]
        wanted += [(self.executed, *actions), (self.phase, "tensor", ()), (self.about, "text", ())]
        for path, kind, shape in wanted:
            if path is None:
                continue
            found = source.feature(path)
            fits = len(found.shape) == len(shape) and all(map(_fits, shape, found.shape))
            if found.kind != kind or not fits:
                raise MuvlaError(
                    f"{source.path}: feature {path}",
                    got=f"{found.kind} of shape {found.shape}",
                    expected=f"{kind} of shape {shape}",
                    remedy=f"choose another schema than {self.name}",
                )


def _fits(wanted: int | None, size: int) -> bool:
    return wanted in (None, size)


def demonstrations(
    source: Source, schema: Schema, task: str, image_size: int | None = None, skip: int = 0
) -> Iterator[Episode]:
    """The episodes but the first `skip`, with frames at `image_size` pixels, or as they are.

    Raises MuvlaError, with file and record, for numbers that are not finite, for an instruction that is empty or
    changes, for features of different lengths, for a gripper to be turned that is outside [-1, 1], and for cameras of
    different sizes that are left as they are.
    """
    for record in source.records(schema.features, skip):
        lengths = {path: len(record.values[path]) for path in (*schema.cameras, schema.proprio, schema.action)}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise _bad(record, schema.action, f"steps {lengths}", "the same number of each, at least 1")
        action = _numbers(record, schema.action)
        if schema.turn_gripper:
            if np.abs(action[:, -1]).max() > 1:
                told = f"a gripper's command of {action[np.abs(action[:, -1]).argmax(), -1]:g}"
                raise _bad(record, schema.action, told, "in [-1, 1], to be clipped to [0, 1] and turned over")
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
    """(T, n) float32."""
    values = record.values[path].astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise _bad(record, path, f"NaN or infinity in step {broken[0]} (from 0)", "finite numbers")
    return values


def _phases(record: Record, path: str | None, length: int) -> np.ndarray:
    """(T,) uint8."""
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
    """(T, V, h, w, 3); raises MuvlaError if the store could not hold the cameras in one column."""
    images = [_sized(record.values[path], image_size) for path in schema.cameras]
    if len({one.shape for one in images}) > 1:
        raise MuvlaError(
            record.where,
            got=f"images of shapes {', '.join(str(one.shape[1:]) for one in images)}",
            expected="cameras of one size",
            remedy="bring them to one with --image-size",
        )
    return np.stack(images, axis=1)


def _sized(images: np.ndarray, size: int | None) -> np.ndarray:
    """(T, h, w, 3) → (T, size, size, 3), with the filter of the environments (`muvla.envs.mikasa`)."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    return np.stack([Image.fromarray(one).resize((size, size), Image.Resampling.LANCZOS) for one in images])


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
        remedy="report it to whoever made the dataset; such an episode cannot be used",
    )
