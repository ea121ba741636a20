"""The episode store: demonstrations as flat columns on disk, named and checked by their content.

Legend: N frames of all episodes, V cameras, h×w image, Q proprio dim, A action dim.

    <task>-<hash of the DatasetConfig>/
      meta.json        the DatasetConfig, the columns' shapes, what simulated and rendered; once sealed also the number
                       of attempts and the content hash
      episodes.jsonl   a line per episode: seed, first frame, length, instruction, target, phase lengths
      <column>.bin     images (N, V, h, w, 3) uint8, proprio (N, Q) float32, executed_action and recorded_action (N, A)
                       float32, phase (N,) uint8

Imported demonstrations lie in a folder named by their `source`. They have no executed_action, and the phase UNKNOWN,
unless an export from here told both, or they were derived: then meta.json says how.

An episode counts once its index line is there, and that is written last; so a crash at any moment loses at most the
episode under way, and the next writer cuts off what it left.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from muvla.config import DatasetConfig
from muvla.config.serialization import canonical_json, content_hash, difference, from_dict, identity
from muvla.envs.phases import NO_OP_PHASES
from muvla.errors import MuvlaError
from muvla.utils.io import append_line, disk_errors, drop_torn_line, read_lines, write_atomically, write_json

COLUMNS = {
    "images": np.dtype(np.uint8),
    "proprio": np.dtype(np.float32),
    "executed_action": np.dtype(np.float32),  # what reached the simulator
    "recorded_action": np.dtype(np.float32),  # what the expert said
    "phase": np.dtype(np.uint8),  # of the observation, and so of the action that answers it
}
INDEX = "episodes.jsonl"
META = "meta.json"


@dataclass
class Episode:
    """One demonstration of T frames; columns as in the store, `info` the rest of its index line."""

    images: np.ndarray  # (T, V, h, w, 3)
    proprio: np.ndarray  # (T, Q)
    executed_action: np.ndarray | None  # (T, A); None: unknown
    recorded_action: np.ndarray  # (T, A)
    phase: np.ndarray  # (T,)
    info: dict[str, Any] = field(default_factory=dict)


def store_path(root: Path, spec: DatasetConfig) -> Path:
    """The folder of a dataset under `root`, named by its task and configuration, or as it was imported."""
    return root / (spec.source or f"{spec.task.name}-{content_hash(spec)}")


def is_sealed(path: Path) -> bool:
    return "sha256" in _read_meta(path)


class EpisodeWriter:
    """Appends episodes to an unfinished store, continuing where a killed one stopped, and seals it.

    `simulator` names what simulates and renders the episodes, `origin` what they are imported from; they are no part of
    the dataset's identity, but a dataset has only one. `pass_through` are the action dimensions that no statistics
    scale (LIBERO's gripper, spec 4.2); they are part of the content. `derived` tells how executed actions and phases
    were derived. Raises MuvlaError for a finished store, one of another simulator, origin or configuration, and one
    without its meta.json.
    """

    def __init__(
        self,
        path: Path,
        spec: DatasetConfig,
        simulator: str | None = None,
        origin: str | None = None,
        pass_through: tuple[int, ...] = (),
        derived: dict[str, Any] | None = None,
    ):
        if is_sealed(path):
            raise MuvlaError(
                str(path), got="a finished dataset", expected="a new or an unfinished one", remedy="read it instead"
            )
        self.path, self.spec, self.simulator, self.origin = path, spec, simulator, origin
        self.pass_through, self.derived = pass_through, derived
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            drop_torn_line(path / INDEX)
        self.index: list[dict[str, Any]] = _read_index(path)
        self._shapes: dict[str, list[int]] | None = None
        if meta := _read_meta(path):
            if meta.get("simulator") != simulator:
                raise MuvlaError(
                    str(path),
                    got=f"episodes to come from {simulator}",
                    expected=f"{meta.get('simulator')}, as before",
                    remedy="go on where it was begun, or remove the folder and collect again here",
                )
            require_same_import(path, meta, spec, origin)
            self._shapes = meta["shapes"]
            self._back_to_the_last_whole_episode()
        elif self.index:
            raise _damaged(path / META, "no such file", "the description of the episodes beside it")

    @property
    def frames(self) -> int:
        return sum(line["length"] for line in self.index)

    def append(self, episode: Episode) -> None:
        """Raises MuvlaError for values that are not finite, columns of unequal length or of another shape than the
        episodes before, and a full disk."""
        known = {name: column for name in COLUMNS if (column := getattr(episode, name)) is not None}
        columns = {name: np.ascontiguousarray(column, COLUMNS[name]) for name, column in known.items()}
        self._check(columns)
        if not str(episode.info.get("instruction", "?")).strip():
            raise MuvlaError(
                "episode instruction",
                got="an empty text",
                expected="a sentence: a policy is told by it",
                remedy="look at the environment that it came from",
            )
        for name, column in columns.items():
            file = self._column(name)
            with disk_errors(file), file.open("ab") as handle:
                handle.write(column.tobytes())
        line = {**episode.info, "start": self.frames, "length": len(episode.phase)}
        append_line(self.path / INDEX, line)
        self.index.append(line)

    def seal(self, attempts: int) -> None:
        """Ends the writing: `attempts` episodes were tried to get these. Raises MuvlaError if there is none."""
        if not self.index:
            raise MuvlaError(
                str(self.path),
                got=f"no successful episode in {attempts} attempts",
                expected="at least one",
                remedy="check the task and its expert",
            )
        meta = self._meta() | {"attempts": attempts}
        write_json(self.path / META, meta | {"sha256": _content(self.path, meta)})

    def _check(self, columns: Mapping[str, np.ndarray]) -> None:
        for name, column in columns.items():
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                raise MuvlaError(
                    f"episode {name}",
                    got="NaN or infinity",
                    expected="finite numbers",
                    remedy="look at the environment that it came from",
                )
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise MuvlaError(
                "episode",
                got=f"columns of {sorted(lengths)} frames",
                expected="one length, at least 1",
                remedy="give every frame its observation, its actions and its phase",
            )
        shapes = {name: list(column.shape[1:]) for name, column in columns.items()}
        if self._shapes is None:
            self._shapes = shapes
            write_json(self.path / META, self._meta())
        elif shapes != self._shapes:
            raise MuvlaError(
                "episode",
                got=f"frames of shapes {shapes}",
                expected=f"one kind of observation per dataset, {self._shapes}",
                remedy="write it to a dataset of its own",
            )

    def _meta(self) -> dict[str, Any]:
        # The identity of the configuration, not all of it: a field added later must not change the content hash.
        meta = {"spec": identity(self.spec), "shapes": self._shapes, "simulator": self.simulator}
        more = {"origin": self.origin, "pass_through": list(self.pass_through) or None, "derived": self.derived}
        return meta | {name: value for name, value in more.items() if value is not None}

    def _column(self, name: str) -> Path:
        return self.path / f"{name}.bin"

    def _back_to_the_last_whole_episode(self) -> None:
        """Cuts what a crash left over: rows without an index line, index lines whose rows never reached the disk."""
        sizes = {name: file.stat().st_size if (file := self._column(name)).exists() else 0 for name in self._shapes}
        frames = min(size // _row_bytes(name, self._shapes) for name, size in sizes.items())
        whole = [line for line in self.index if line["start"] + line["length"] <= frames]
        if whole != self.index:
            self.index = whole
            write_atomically(self.path / INDEX, "".join(json.dumps(line) + "\n" for line in whole).encode())
        for name, size in sizes.items():
            if size > (kept := self.frames * _row_bytes(name, self._shapes)):
                with disk_errors(self._column(name)):
                    os.truncate(self._column(name), kept)


class EpisodeStore:
    """A finished dataset. `store["images"]` is a read-only memory map of all frames; `index` has a line per episode.

    Raises MuvlaError for one that is missing, unfinished or cut.
    """

    def __init__(self, path: Path):
        self.path = path
        meta = _read_meta(path)
        if not meta:
            raise MuvlaError(
                str(path),
                got="no dataset",
                expected="demonstrations",
                remedy="run `muvla collect STUDY`, or `muvla data import`",
            )
        if "sha256" not in meta:
            raise MuvlaError(
                str(path),
                got="an unfinished dataset",
                expected="a finished one",
                remedy="run `muvla collect STUDY` or `muvla data import` again; it continues",
            )
        self.spec = from_dict(DatasetConfig, meta["spec"])
        self.attempts: int = meta["attempts"]
        self.sha256: str = meta["sha256"]
        self.simulator: str | None = meta.get("simulator")
        self.meta = meta
        self._shapes: dict[str, list[int]] = meta["shapes"]
        self.index: list[dict[str, Any]] = _read_index(path)
        if len(self.index) != self.spec.episodes:
            raise _damaged(path / INDEX, f"{len(self.index)} episodes", f"the {self.spec.episodes} of the dataset")
        self.lengths = np.array([line["length"] for line in self.index])
        self.starts = np.array([line["start"] for line in self.index])
        if not np.array_equal(self.starts, np.cumsum(self.lengths) - self.lengths):
            raise _damaged(path / INDEX, "episodes that overlap or leave gaps", "one after the other")
        self._columns: dict[str, np.ndarray] = {}
        for name in self._shapes:
            file, expected = path / f"{name}.bin", self.frames * _row_bytes(name, self._shapes)
            size = file.stat().st_size if file.exists() else 0
            if size != expected:
                raise _damaged(file, f"{size} bytes", f"{expected} bytes")
            self._columns[name] = np.memmap(file, COLUMNS[name], mode="r", shape=(self.frames, *self._shapes[name]))

    @property
    def parts(self) -> tuple[EpisodeStore, ...]:
        """The datasets that its episodes come from, in their order: of a mixture several."""
        return (self,)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def pass_through(self) -> tuple[int, ...]:
        """Action dimensions that no statistics scale."""
        return tuple(self.meta.get("pass_through", ()))

    def __len__(self) -> int:
        """Episodes."""
        return len(self.index)

    def __getitem__(self, column: str) -> np.ndarray:
        """Raises MuvlaError for the executed actions of imported demonstrations."""
        if column == "executed_action":
            self.require_executed(column)
        return self._columns[column]

    @property
    def frames(self) -> int:
        """N."""
        return int(self.lengths.sum())

    @property
    def instructions(self) -> list[str]:
        """The different ones, in order of appearance."""
        return list(dict.fromkeys(line["instruction"] for line in self.index))

    @property
    def seeds(self) -> range:
        """That were tried; of imported demonstrations those from the first to the last that are told, or none."""
        if self.spec.source is None:
            return range(self.spec.seed, self.spec.seed + self.attempts)
        told = [line["seed"] for line in self.index if "seed" in line]
        return range(min(told), max(told) + 1) if told else range(0)

    @cached_property
    def is_executed(self) -> np.ndarray:
        """(N,) whether the simulator applied the frame's recorded action. Raises MuvlaError where that is unknown."""
        self.require_executed("label_is_executed")
        return ~np.isin(self["phase"], [int(phase) for phase in NO_OP_PHASES])

    @property
    def knows_executed(self) -> bool:
        """Whether it is known, or derived, what was executed; most imported demonstrations do not tell."""
        return "executed_action" in self._shapes

    @property
    def knows_phases(self) -> bool:
        """Whether a cue is told from a delay; of derived phases it is not."""
        return self.knows_executed and "derived" not in self.meta

    def require_executed(self, what: str) -> None:
        """Raises MuvlaError where phases and executed actions, from which `what` follows, are unknown."""
        if not self.knows_executed:
            raise MuvlaError(
                f"{self.name}: {what}",
                got="unknown: these imported demonstrations tell neither phases nor what was executed",
                expected="demonstrations that do",
                remedy="set data.labels to recorded, which needs "
                "neither, import again with --derive motion, or collect",
            )

    def require_phases(self, what: str) -> None:
        """Raises MuvlaError where cue and delay, from which `what` follows, are not told apart."""
        self.require_executed(what)
        if not self.knows_phases:
            raise MuvlaError(
                f"{self.name}: {what}",
                got="derived phases, which do not tell cue from delay",
                expected="demonstrations that do",
                remedy="collect them here",
            )

    def verify(self) -> None:
        """Raises MuvlaError if any byte is another than when the dataset was sealed."""
        found = _content(self.path, self.meta)
        if found != self.sha256:
            raise MuvlaError(
                str(self.path),
                got=f"content {found[:12]}",
                expected=f"content {self.sha256[:12]}: the data changed",
                remedy="remove the folder and collect again or import again, or restore it",
            )


def open_store(root: Path, spec: DatasetConfig) -> EpisodeStore:
    """The finished dataset of `spec` under `root`; raises MuvlaError if it is not there, or is another than `spec`
    says."""
    path = store_path(root, spec)
    if spec.source is None:
        return EpisodeStore(path)
    if not is_sealed(path):
        size = f" --image-size {spec.image_size}" * (spec.image_size is not None)
        told = f"--task {spec.task.name} --name {spec.source}{size}"
        raise MuvlaError(
            "data.dataset.source",
            got=f"{spec.source}: {'a part of it' if path.exists() else 'nothing'} at {path}",
            expected="an imported dataset",
            remedy=f"run `muvla data import PATH {told}`",
        )
    store = EpisodeStore(path)
    require_same_import(path, store.meta, spec)
    return store


def require_same_import(path: Path, meta: Mapping[str, Any], spec: DatasetConfig, origin: str | None = None) -> None:
    """Raises MuvlaError if the dataset that lies at `path` has another configuration than `spec`, or, where one is
    given, another origin."""
    there = from_dict(DatasetConfig, meta["spec"])
    for name, (got, expected) in difference(spec, there).items():
        raise MuvlaError(
            f"data.dataset.{name}",
            got=got,
            expected=f"{expected!r}, as in {path}",
            remedy="write what the import printed, or import under another --name",
        )
    if origin is not None and meta.get("origin") != origin:
        raise MuvlaError(
            str(path),
            got=f"an import from {origin}",
            expected=f"one from {meta.get('origin')}, as before",
            remedy="import under another --name, or remove the folder",
        )


def _row_bytes(name: str, shapes: Mapping[str, list[int]]) -> int:
    return COLUMNS[name].itemsize * int(np.prod(shapes[name], dtype=np.int64))


def _content(path: Path, meta: Mapping[str, Any]) -> str:
    """SHA-256 of what the dataset is: its configuration, shapes and attempts, its index and its columns."""
    spec = {name: value for name, value in meta["spec"].items() if name != "source"}  # a name is no content
    described = {"spec": spec, "shapes": meta["shapes"], "attempts": meta["attempts"]}
    described |= {name: meta[name] for name in ("pass_through",) if name in meta}
    if "derived" in meta:  # what was measured of the rule elsewhere is no content
        described["derived"] = meta["derived"]["rule"]
    digest = hashlib.sha256(canonical_json(described).encode())
    for name in (INDEX, *(f"{column}.bin" for column in COLUMNS if column in meta["shapes"])):
        with (path / name).open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def _read_meta(path: Path) -> dict[str, Any]:
    """Empty where there is no meta.json."""
    file = path / META
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _damaged(file, f"broken JSON ({error})", "whole JSON") from None


def _read_index(path: Path) -> list[dict[str, Any]]:
    try:
        return read_lines(path / INDEX)
    except MuvlaError as error:
        raise _damaged(path / INDEX, error.got, error.expected) from None


def _damaged(file: Path, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        str(file),
        got=got,
        expected=f"{expected}; the file was cut or changed",
        remedy="remove the dataset's folder and collect again or import again, or restore it",
    )
