"""The episode store: demonstrations as flat columns on disk, named and checked by their content.

Legend: N frames of all episodes, V cameras, h×w image, Q proprio dim, A action dim.

    <task>-<hash of the DatasetConfig>/
      meta.json        the DatasetConfig, shapes of the columns, simulator and renderer; once sealed also the number of
                       attempts and the content hash
      episodes.jsonl   a line per episode: seed, first frame, length, instruction, target, phase lengths
      <column>.bin     images (N, V, h, w, 3) uint8, proprio (N, Q) float32, executed_action and recorded_action (N, A)
                       float32, phase (N,) uint8

Imported demonstrations lie in a folder named by their `source`. They have no executed_action and the phase UNKNOWN,
with two exceptions: an export of this project records both, and a rule may derive both, which meta.json records.

An episode's index line is written last, and an episode counts once its line exists. So a crash loses at most the
episode in progress, and the next writer removes the rest of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from muvla.config import DatasetConfig
from muvla.config.serialization import canonical_json, content_hash, difference, from_dict, identity
from muvla.envs.conventions import NOTHING_STATED, Conventions, read_conventions
from muvla.envs.phases import NO_OP_PHASES
from muvla.errors import DiskError, MuvlaError, located
from muvla.utils.foreign import decode, read_object
from muvla.utils.io import append_line, disk_errors, drop_torn_line, read_lines, write_atomically, write_json

COLUMNS = {
    "images": np.dtype(np.uint8),
    "proprio": np.dtype(np.float32),
    "executed_action": np.dtype(np.float32),  # the action that the simulator applied
    "recorded_action": np.dtype(np.float32),  # the expert's action
    "phase": np.dtype(np.uint8),  # phase of the observation and of the action that answers it
}
INDEX = "episodes.jsonl"
META = "meta.json"
RESTORE = "restore the dataset's folder, or remove it and collect or import again"


DIMENSIONS = {"images": 4, "proprio": 1, "executed_action": 1, "recorded_action": 1, "phase": 0}  # of one frame
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Derived(msgspec.Struct):
    rule: str


class _Meta(msgspec.Struct):
    """The checked fields of meta.json; `sha256` and `attempts` are those of a sealed dataset."""

    spec: dict[str, Any]
    shapes: dict[str, list[Count]] = {}
    attempts: Count = 0
    sha256: str = ""
    simulator: str | None = None
    origin: str | None = None
    pass_through: list[Count] = []
    derived: _Derived | None = None
    conventions: dict[str, Any] = {}
    names: dict[str, list[str]] = {}


class _Line(msgspec.Struct):
    """The checked fields of a line of episodes.jsonl."""

    start: Count
    length: Annotated[int, msgspec.Meta(ge=1, le=2**40)]
    instruction: str
    task: str = ""
    seed: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] = 0


@dataclass
class Episode:
    """One demonstration of T frames; columns as in the store, `info` the other fields of its index line."""

    images: np.ndarray  # (T, V, h, w, 3)
    proprio: np.ndarray  # (T, Q)
    executed_action: np.ndarray | None  # (T, A); None: unknown
    recorded_action: np.ndarray  # (T, A)
    phase: np.ndarray  # (T,)
    info: dict[str, Any] = field(default_factory=dict)


def get_store_path(root: Path, spec: DatasetConfig) -> Path:
    """Returns the folder of a dataset under `root`: its source's name, or its task and the hash of its
    configuration."""
    return root / (spec.source or f"{spec.task.name}-{content_hash(spec)}")


def is_sealed(path: Path) -> bool:
    return "sha256" in _read_meta(path)


def read_unfinished(path: Path) -> tuple[DatasetConfig, str | None] | None:
    """Returns the configuration and the origin of an unfinished dataset; None where no episode was written."""
    meta = _read_meta(path)
    return (from_dict(DatasetConfig, meta["spec"]), meta.get("origin")) if meta and "sha256" not in meta else None


class EpisodeWriter:
    """Appends episodes to an unfinished store, continues where a killed writer stopped, and seals the store."""

    def __init__(
        self,
        path: Path,
        spec: DatasetConfig,
        simulator: str | None = None,
        origin: str | None = None,
        pass_through: tuple[int, ...] = (),
        derived: dict[str, Any] | None = None,
        conventions: Conventions = NOTHING_STATED,
        names: dict[str, list[str]] | None = None,
        collected: dict[str, Any] | None = None,
    ):
        """Opens a new or unfinished store. Simulator and origin do not belong to the dataset's identity, but a dataset
        has only one of each.

        Args:
            path: folder of the store.
            spec: the dataset's configuration.
            simulator: simulator and renderer of the episodes.
            origin: source of imported episodes.
            pass_through: action dimensions that no statistics scale (LIBERO's gripper, spec 4.2); part of the content.
            derived: the rule that derived executed actions and phases, with its accuracy.
            conventions: meaning of the actions; no part of the content.
            names: words for the numbers of `proprio` and `action`, and the `cameras`; no part of the content.
            collected: code version and versions of the members that collect; no part of the content. A store that
                another version continues keeps both.

        Raises:
            MuvlaError: the store is finished, belongs to another simulator, origin or configuration, or lacks
                meta.json.
        """
        if is_sealed(path):
            raise MuvlaError(
                str(path),
                got="a finished dataset",
                expected="a new or unfinished dataset",
                remedy="open it with EpisodeStore",
            )
        self.path, self.spec, self.simulator, self.origin = path, spec, simulator, origin
        self.pass_through, self.derived, self.conventions = pass_through, derived, conventions
        self.names = names or {}
        self.collected = [collected] if collected else []
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            drop_torn_line(path / INDEX)
        self.index: list[dict[str, Any]] = _read_index(path)
        self._shapes: dict[str, list[int]] | None = None
        if meta := _read_meta(path):
            _require_same_simulator(path, meta, simulator)
            require_same_import(path, meta, spec, origin)
            self._shapes = meta["shapes"]
            earlier = meta.get("collected", [])
            self.collected = earlier + [record for record in self.collected if record not in earlier]
            self._drop_incomplete_episodes()
        elif self.index:
            raise _damaged(path / META, "no such file", "the description of the episodes")

    @property
    def frames(self) -> int:
        return sum(line["length"] for line in self.index)

    def append(self, episode: Episode) -> None:
        """Writes an episode.

        Raises:
            MuvlaError: values are not finite, columns differ in length, shapes differ from earlier episodes, or the
                instruction is empty.
            DiskError: the disk is full.
        """
        present = {name: column for name in COLUMNS if (column := getattr(episode, name)) is not None}
        columns = {name: np.ascontiguousarray(column, COLUMNS[name]) for name, column in present.items()}
        self._check(columns)
        if not str(episode.info.get("instruction", "?")).strip():
            raise MuvlaError(
                "episode instruction",
                got="an empty text",
                expected="a sentence that tells the policy its task",
                remedy="give the task an instruction",
            )
        for name, column in columns.items():
            file = self._column(name)
            with disk_errors(file), file.open("ab") as handle:
                handle.write(column.tobytes())
        line = {**episode.info, "start": self.frames, "length": len(episode.phase)}
        append_line(self.path / INDEX, line)
        self.index.append(line)

    def seal(self, attempts: int) -> None:
        """Finishes the store; `attempts` episodes were tried to get its episodes. Raises MuvlaError for an
        empty store."""
        if not self.index:
            raise MuvlaError(
                str(self.path),
                got=f"no successful episode in {attempts} attempts",
                expected="at least one successful episode",
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
                    remedy=f"check the source of the column {name}: environment, expert or imported file",
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
                expected=f"the dataset's shapes {self._shapes}",
                remedy="write episodes of other shapes to another dataset",
            )

    def _meta(self) -> dict[str, Any]:
        # Only the configuration's identity: a field added later must not change the content hash.
        meta = {"spec": identity(self.spec), "shapes": self._shapes, "simulator": self.simulator}
        more = {"origin": self.origin, "pass_through": list(self.pass_through) or None, "derived": self.derived}
        more |= {"conventions": self.conventions.stated or None, "names": self.names or None}
        more["collected"] = self.collected or None
        return meta | {name: value for name, value in more.items() if value is not None}

    def _column(self, name: str) -> Path:
        return self.path / f"{name}.bin"

    def _drop_incomplete_episodes(self) -> None:
        """Removes what a crash left: rows without an index line, and index lines whose rows never reached the disk."""
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
    """A finished dataset. `store["images"]` is a read-only memory map of all frames; `index` has a line per episode."""

    def __init__(self, path: Path):
        """Opens the dataset. Raises MuvlaError for a dataset that is missing, unfinished or cut."""
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
                expected="a finished dataset",
                remedy="run `muvla collect STUDY` or `muvla data import` again; the command continues the dataset",
            )
        with located(path / META):
            self.spec = from_dict(DatasetConfig, meta["spec"])
        self.attempts: int = meta.get("attempts", 0)
        self.sha256: str = meta["sha256"]
        self.simulator: str | None = meta.get("simulator")
        self.meta = meta
        self._shapes: dict[str, list[int]] = meta.get("shapes", {})
        self.index: list[dict[str, Any]] = _read_index(path)
        if len(self.index) != self.spec.episodes:
            raise _damaged(path / INDEX, f"{len(self.index)} episodes", f"the {self.spec.episodes} of the dataset")
        if not _is_seekable(self._shapes):
            raise _damaged(path / META, f"shapes {self._shapes}", "shapes of images, proprio, actions and phases")
        self.lengths = np.array([line["length"] for line in self.index])
        self.starts = np.array([line["start"] for line in self.index])
        if not np.array_equal(self.starts, np.cumsum(self.lengths) - self.lengths):
            raise _damaged(path / INDEX, "episodes that overlap or leave gaps", "consecutive episodes")
        self._columns: dict[str, np.ndarray] = {}
        for name in self._shapes:
            file, expected = path / f"{name}.bin", self.frames * _row_bytes(name, self._shapes)
            size = file.stat().st_size if file.exists() else 0
            if size != expected:
                raise _damaged(file, f"{size} bytes", f"{expected} bytes")
            self._columns[name] = np.memmap(file, COLUMNS[name], mode="r", shape=(self.frames, *self._shapes[name]))

    @property
    def parts(self) -> tuple[EpisodeStore, ...]:
        """The datasets that the episodes come from, in order; several for a mixture."""
        return (self,)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def pass_through(self) -> tuple[int, ...]:
        """Action dimensions that no statistics scale."""
        return tuple(self.meta.get("pass_through", ()))

    @property
    def names(self) -> dict[str, list[str]]:
        """Words for the numbers of `proprio` and `action`, and the `cameras`, where the imported files have them."""
        return self.meta.get("names", {})

    @property
    def collected(self) -> list[dict[str, Any]]:
        """Code version and member versions of every collection that wrote here; [] in older and imported data."""
        return self.meta.get("collected", [])

    @property
    def conventions(self) -> Conventions:
        """Meaning of the actions. Datasets of earlier versions state nothing."""
        return read_conventions(self.meta.get("conventions", {}), f"{self.path / META}: conventions")

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.index)

    def __getitem__(self, column: str) -> np.ndarray:
        """Returns a column. Raises MuvlaError for executed actions that imported demonstrations do not record."""
        if column == "executed_action":
            self.require_executed(column)
        return self._columns[column]

    @property
    def frames(self) -> int:
        """N, the number of frames."""
        return int(self.lengths.sum())

    @property
    def instructions(self) -> list[str]:
        """The distinct instructions, in order of appearance."""
        return list(dict.fromkeys(line["instruction"] for line in self.index))

    @property
    def seeds(self) -> range:
        """The seeds that were tried. Imports give the range of their recorded seeds, or an empty range."""
        if self.spec.source is None:
            return range(self.spec.seed, self.spec.seed + self.attempts)
        recorded = [line["seed"] for line in self.index if "seed" in line]
        return range(min(recorded), max(recorded) + 1) if recorded else range(0)

    @cached_property
    def is_executed(self) -> np.ndarray:
        """(N,) bool, True where the simulator applied the recorded action. Raises MuvlaError if this is unknown."""
        self.require_executed("label_is_executed")
        return ~np.isin(self["phase"], [int(phase) for phase in NO_OP_PHASES])

    @property
    def knows_executed(self) -> bool:
        """True if executed actions are recorded or derived; most imported demonstrations lack them."""
        return "executed_action" in self._shapes

    @property
    def knows_phases(self) -> bool:
        """True if the phases distinguish cue from delay; derived phases do not."""
        return self.knows_executed and "derived" not in self.meta

    def require_executed(self, purpose: str) -> None:
        """Raises MuvlaError if executed actions, which `purpose` needs, are unknown."""
        if not self.knows_executed:
            raise MuvlaError(
                f"{self.name}: {purpose}",
                got="imported demonstrations without phases and executed actions",
                expected="demonstrations with phases and executed actions",
                remedy="set data.labels to recorded, import again with --derive motion, or collect demonstrations",
            )

    def require_phases(self, purpose: str) -> None:
        """Raises MuvlaError if the phases, which `purpose` needs, do not distinguish cue from delay."""
        self.require_executed(purpose)
        if not self.knows_phases:
            raise MuvlaError(
                f"{self.name}: {purpose}",
                got="derived phases, which do not distinguish cue from delay",
                expected="demonstrations with recorded phases",
                remedy="collect demonstrations with `muvla collect`",
            )

    def verify(self) -> None:
        """Reads every byte; raises MuvlaError if any byte differs from the sealed dataset."""
        content = _content(self.path, self.meta)
        if content != self.sha256:
            raise MuvlaError(
                str(self.path),
                got=f"changed data, content {content[:12]}",
                expected=f"content {self.sha256[:12]}",
                remedy="restore the folder, or remove it and collect or import again",
            )


def open_store(root: Path, spec: DatasetConfig) -> EpisodeStore:
    """Opens the finished dataset of `spec` under `root`. Raises MuvlaError if it is missing or differs from `spec`."""
    path = get_store_path(root, spec)
    if spec.source is None:
        return EpisodeStore(path)
    if not is_sealed(path):
        options = f"--task {spec.task.name} --name {spec.source}"
        if spec.image_size is not None:
            options += f" --image-size {spec.image_size}"
        raise MuvlaError(
            "data.dataset.source",
            got=f"{spec.source}: {'an unfinished import' if path.exists() else 'nothing'} at {path}",
            expected="an imported dataset",
            remedy=f"run `muvla data import PATH {options}`",
        )
    store = EpisodeStore(path)
    require_same_import(path, store.meta, spec)
    return store


def _require_same_simulator(path: Path, meta: Mapping[str, Any], simulator: str | None) -> None:
    """Raises MuvlaError if an unfinished store has episodes from another simulator."""
    if meta.get("simulator") != simulator:
        raise MuvlaError(
            str(path),
            got=f"new episodes from {simulator}",
            expected=f"episodes from {meta.get('simulator')}, as the existing ones",
            remedy="continue on the first machine, or remove the folder and collect again here",
        )


def require_same_import(path: Path, meta: Mapping[str, Any], spec: DatasetConfig, origin: str | None = None) -> None:
    """Raises MuvlaError if the dataset at `path` has another configuration than `spec`, or another origin.

    Args:
        path: folder of the dataset.
        meta: its meta.json.
        spec: the expected configuration.
        origin: the expected origin; None accepts any.
    """
    existing = from_dict(DatasetConfig, meta["spec"])
    for name, (got, expected) in difference(spec, existing).items():
        raise MuvlaError(
            f"data.dataset.{name}",
            got=got,
            expected=f"{expected!r}, as in {path}",
            remedy="write the configuration that the import printed, or import under another --name",
        )
    if origin is not None and meta.get("origin") != origin:
        raise MuvlaError(
            str(path),
            got=f"an import from {origin}",
            expected=f"an import from {meta.get('origin')}, as the existing one",
            remedy="import under another --name, or remove the folder",
        )


def restate_conventions(path: Path, conventions: Conventions) -> None:
    """Replaces facts in the conventions of the finished dataset at `path`; its content stays."""
    meta = _read_meta(path)
    stated = (
        read_conventions(meta.get("conventions", {}), f"{path / META}: conventions").replaced_by(conventions).stated
    )
    if stated != meta.get("conventions", {}):
        write_json(path / META, meta | {"conventions": stated})


def _row_bytes(name: str, shapes: Mapping[str, list[int]]) -> int:
    return COLUMNS[name].itemsize * math.prod(shapes[name])


def _is_seekable(shapes: Mapping[str, list[int]]) -> bool:
    """True if the shapes are those of columns that every dataset has, and of `executed_action` where it is present."""
    needed = COLUMNS.keys() - {"executed_action"}
    return needed <= shapes.keys() <= COLUMNS.keys() and all(len(shapes[name]) == DIMENSIONS[name] for name in shapes)


def _content(path: Path, meta: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the dataset: its configuration, shapes and attempts, its index and its columns."""
    spec = {name: value for name, value in meta["spec"].items() if name != "source"}  # the name is not content
    described = {"spec": spec, "shapes": meta["shapes"], "attempts": meta["attempts"]}
    described |= {name: meta[name] for name in ("pass_through",) if name in meta}
    if "derived" in meta:  # the rule's accuracy on another dataset is not content
        described["derived"] = meta["derived"]["rule"]
    digest = hashlib.sha256(canonical_json(described).encode())
    for name in (INDEX, *(f"{column}.bin" for column in COLUMNS if column in meta["shapes"])):
        with (path / name).open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def _read_meta(path: Path) -> dict[str, Any]:
    """Returns meta.json, or an empty dictionary without the file."""
    file = path / META
    with disk_errors(file):
        if not file.exists():
            return {}
    with _named_as_damage():
        meta = read_object(file)
        decode(meta, _Meta, str(file))
    return meta


def _read_index(path: Path) -> list[dict[str, Any]]:
    with _named_as_damage():
        lines = read_lines(path / INDEX)
        for number, line in enumerate(lines, start=1):
            decode(line, _Line, f"{path / INDEX}:{number}")
    return lines


@contextlib.contextmanager
def _named_as_damage() -> Iterator[None]:
    """Give the errors of the block the remedy of a damaged dataset."""
    try:
        yield
    except DiskError:
        raise
    except MuvlaError as error:
        raise MuvlaError(error.field, got=error.got, expected=error.expected, remedy=RESTORE) from None


def _damaged(file: Path, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        str(file),
        got=got,
        expected=f"{expected}; the file was cut or changed",
        remedy=RESTORE,
    )
