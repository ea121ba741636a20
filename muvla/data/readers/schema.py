"""The features of a published dataset that become an episode's columns.

Legend: T steps, V cameras, h×w image, Q proprio dim, A action dim.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from muvla.data.readers.source import OTHER_EPISODES, Record, Source
from muvla.data.readers.standards import LEAST_STEPS, STANDARDS
from muvla.data.store import Episode
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError


@dataclass(frozen=True)
class Schema:
    """Names the features of a dataset; `muvla.data.readers.formats` explains how to write your own."""

    name: str
    cameras: tuple[str, ...]  # features, the base camera first
    proprio: tuple[str, ...]  # features whose numbers are joined in this order
    proprio_dim: int | None  # Q; None accepts any length
    action: tuple[str, ...]
    action_dim: int | None  # A; None accepts any length
    instruction: str | None  # feature with the task's sentence; None where the files have no text
    text: str | None = None  # the task's sentence itself, in place of `instruction`
    # The last action dimension is the gripper: it is clipped to [0, 1] and inverted, so 0 becomes 1.
    turn_gripper: bool = False
    standard: str = ""  # a name of STANDARDS: the actions are computed from stored actions and states
    turn_images: bool = False  # by 180°, so that the images are upright
    pass_through: tuple[int, ...] = ()  # action dimensions that statistics do not scale (spec 4.2)
    # Features of this project's exports: executed actions, phases, and a JSON object of the other index fields.
    executed: str | None = None
    executed_as_recorded: bool = False  # the simulator applied every recorded action
    phase: str | None = None
    about: str | None = None
    conventions: Conventions = NOTHING_STATED  # of the actions after the gripper is turned

    @property
    def features(self) -> tuple[str, ...]:
        """The features to read, each of them once."""
        sentence = self.instruction if self.text is None else None
        optional = (sentence, self.executed, self.phase, self.about)
        return tuple(dict.fromkeys((*self.cameras, *self.proprio, *self.action, *filter(None, optional))))

    @property
    def knows_executed(self) -> bool:
        """True if the data state the executed actions."""
        return self.executed is not None or self.executed_as_recorded

    def check(self, source: Source) -> None:
        """Raises MuvlaError if the dataset lacks a feature or has it in another shape; reads no episode."""
        for camera in self.cameras:
            self._require(source, camera, "image", ((None, None, 3),))
        self._check_parts(source, self.proprio, self.proprio_dim)
        size = self._check_parts(source, self.action, self.action_dim)
        if any(dimension >= size for dimension in self.pass_through):
            raise MuvlaError(
                f"{source.path}: pass_through",
                got=list(self.pass_through),
                expected=f"action dimensions 0 to {size - 1}",
                remedy="write the dataset again with `muvla data write`, or choose another --schema",
            )
        if self.executed is not None:
            self._require(source, self.executed, "tensor", ((self.action_dim,),))
        for path, content in ((self.phase, "tensor"), (self.about, "text")):
            if path is not None:
                self._require(source, path, content, ((),))
        if self.text is None:
            self._check_instruction(source)

    def _check_parts(self, source: Source, parts: tuple[str, ...], size: int | None) -> int:
        """Checks that every part is a vector or a number per step, and that a fixed size is the sum of all. Returns
        the sum."""
        if size is not None and len(parts) == 1:
            self._require(source, parts[0], "tensor", ((size,),))
            return size
        shapes = [self._require(source, path, "tensor", ((None,), ())) for path in parts]
        joined = sum(shape[0] if shape else 1 for shape in shapes)
        if size not in (None, joined):
            raise MuvlaError(
                f"{source.path}: features {', '.join(parts)}",
                got=f"{joined} numbers",
                expected=f"{size} numbers, by the schema {self.name}",
                remedy="name the features with --proprio and --action, which accept any size",
            )
        return joined

    def _check_instruction(self, source: Source) -> None:
        if self.instruction is None:
            raise MuvlaError(
                "--instruction",
                got=None,
                expected="the task's sentence, because these files state none",
                remedy="pass --instruction with the task's sentence, or --instruction-feature with the name of a text",
            )
        feature = source.feature(self.instruction)
        if feature.content != "text":
            raise MuvlaError(
                f"{source.path}: feature {self.instruction}",
                got=f"{feature.content} of shape {feature.shape}",
                expected="a text",
                remedy="name the text with --instruction-feature, or pass the sentence with --instruction",
            )

    def _require(
        self, source: Source, path: str, content: str, shapes: tuple[tuple[int | None, ...], ...]
    ) -> tuple[int, ...]:
        """Returns the shape of a feature. Raises MuvlaError for other content and for none of the shapes.

        Args:
            source: the opened dataset.
            path: the feature.
            content: `image`, `tensor` or `text`.
            shapes: the accepted shapes; None accepts any size.
        """
        feature = source.feature(path)
        fits = any(len(feature.shape) == len(shape) and all(map(_fits, shape, feature.shape)) for shape in shapes)
        if feature.content != content or not fits:
            raise MuvlaError(
                f"{source.path}: feature {path}",
                got=f"{feature.content} of shape {feature.shape}",
                expected=f"{content} of shape {' or '.join(map(str, shapes))}, by the schema {self.name}",
                remedy="choose the dataset's schema with --schema, or name the features with --camera, --proprio and "
                "--action, which accept any size",
            )
        return feature.shape


def _fits(required: int | None, size: int) -> bool:
    return required in (None, size)


def read_demonstrations(
    source: Source,
    schema: Schema,
    task: str,
    image_size: int | None = None,
    numbers: Sequence[int] | None = None,
    note: Callable[[frozenset[str]], None] = lambda notes: None,
) -> Iterator[Episode]:
    """Yields the episodes.

    Args:
        source: the opened dataset.
        schema: the features to read.
        task: name of the task.
        image_size: side of the frames in pixels; None keeps the size.
        numbers: the episodes to read, ascending; None reads all.
        note: called with the notes of each record.

    Raises:
        MuvlaError: with file and record, for numbers that are not finite, an empty or changing instruction,
            features of different lengths, a gripper to invert outside [-1, 1], or cameras of different sizes
            without `image_size`.
    """
    for record in source.records(schema.features, numbers):
        note(record.notes)
        action = _join(record, schema.action)
        lengths = {path: len(record.values[path]) for path in (*schema.cameras, *schema.proprio, *schema.action)}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            where = schema.action[0]
            raise _bad(record, where, f"steps {lengths}", "one number of steps for all features, at least 1")
        if schema.turn_gripper:
            _turn_gripper(record, schema.action[-1], action)
        proprio, steps = _join(record, schema.proprio), slice(None)
        if schema.standard:
            action, steps = _standardise(record, schema, action, proprio)
        executed = action if schema.executed_as_recorded else None
        yield Episode(
            images=_images(record, schema, image_size)[steps],
            proprio=proprio[steps],
            executed_action=executed if schema.executed is None else _join(record, (schema.executed,)),
            recorded_action=action,
            phase=_phases(record, schema.phase, len(action)),
            info={
                **record.info,
                **_about(record, schema.about),
                "task": task,
                "instruction": schema.text or _instruction(record, schema.instruction),
            },
        )


def _standardise(record: Record, schema: Schema, action: np.ndarray, proprio: np.ndarray) -> tuple[np.ndarray, slice]:
    """Returns the actions of the schema's standard, and the steps that are left."""
    if schema.standard == "bridge" and len(action) < LEAST_STEPS:
        raise _bad(record, schema.action[0], f"{len(action)} steps", f"at least {LEAST_STEPS} steps")
    return STANDARDS[schema.standard](action, proprio)


def _turn_gripper(record: Record, path: str, action: np.ndarray) -> None:
    """Inverts the last column of (T, A) in place."""
    largest = np.abs(action[:, -1]).argmax()
    if abs(action[largest, -1]) > 1:
        raise _bad(record, path, f"a gripper command of {action[largest, -1]:g}", "a gripper command in [-1, 1]")
    action[:, -1] = 1 - np.clip(action[:, -1], 0, 1)


def _join(record: Record, paths: tuple[str, ...]) -> np.ndarray:
    """Returns (T, n) float32, the numbers of all features side by side."""
    parts = [_numbers(record, path) for path in paths]
    if len({len(part) for part in parts}) > 1:
        lengths = {path: len(part) for path, part in zip(paths, parts, strict=True)}
        raise _bad(record, paths[0], f"steps {lengths}", "one number of steps for all features, at least 1")
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _numbers(record: Record, path: str) -> np.ndarray:
    """Returns (T, n) float32."""
    values = np.asarray(record.values[path]).astype(np.float32)
    if values.ndim == 0:
        raise _bad(record, path, "one number for the episode", "numbers for each step")
    values = values[:, None] if values.ndim == 1 else values
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
    if schema.turn_images:
        images = [camera[:, ::-1, ::-1] for camera in images]
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
    """Returns the episode's sentence."""
    text = read_instruction(record, path)
    if text is None:
        raise MuvlaError(
            f"{record.where}: {path}",
            got="an empty text",
            expected="one instruction per episode",
            remedy="pass --skip-unlabelled to leave such episodes out, or --instruction with the task's sentence",
        )
    return text


def read_instruction(record: Record, path: str) -> str | None:
    """Returns the sentence of a record, or None without one. Raises MuvlaError for several sentences."""
    texts = dict.fromkeys(np.ravel(record.values[path]).tolist())
    if len(texts) > 1:
        raise _bad(record, path, f"several, {', '.join(map(repr, texts))}", "one instruction per episode")
    return str(next(iter(texts), "")).strip() or None


def _bad(record: Record, path: str, got: str, expected: str) -> MuvlaError:
    return MuvlaError(f"{record.where}: {path}", got=got, expected=expected, remedy=OTHER_EPISODES)
