"""Several datasets presented as one store, without copying a frame.

Episodes and frames are numbered through, one dataset after the other, in the order of `DataConfig.datasets`.

Legend: N frames, V cameras, h×w image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muvla.config import DataConfig
from muvla.config.serialization import content_hash
from muvla.data.store import EpisodeStore, open_store
from muvla.envs.conventions import Conventions, common_conventions
from muvla.errors import MuvlaError


class JoinedColumn:
    """A column of several stores as one read-only array; rows are read from the stores' memory maps."""

    def __init__(self, columns: Sequence[np.ndarray]):
        self._columns = tuple(columns)
        self._ends = np.cumsum([len(column) for column in columns])
        self.dtype = columns[0].dtype
        self.shape = (int(self._ends[-1]), *columns[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Returns rows by their number from 0, or by an integer array of any shape, in its shape.

        Raises TypeError for other indices: a tuple or a slice, which mean something to an array, would become a list of
        rows.
        """
        rows = rows if isinstance(rows, tuple) else np.asarray(rows)
        if isinstance(rows, tuple) or rows.dtype.kind not in "iu":
            raise TypeError(f"a column of several stores takes integers as row numbers, not {rows!r}")
        of = np.searchsorted(self._ends, rows, side="right")
        taken = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for i in np.unique(of):
            begin = self._ends[i] - len(self._columns[i])
            taken[of == i] = self._columns[i][rows[of == i] - begin]
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns all rows, in memory."""
        return np.concatenate(self._columns, dtype=dtype, casting="unsafe")


class Mixture(EpisodeStore):
    """Several datasets as one store."""

    def __init__(self, stores: Sequence[EpisodeStore]):
        """Joins the datasets.

        Raises MuvlaError, with the two datasets, for unlike shapes of frames, unlike action dimensions without scaling,
        equal content, or common seeds of one task.
        """
        self._parts = tuple(stores)
        first = stores[0]
        for i, other in enumerate(stores):
            for earlier in stores[:i]:
                _require_distinct(earlier, other)
            _require_alike(first, other)
        self.sha256 = content_hash([store.sha256 for store in stores], length=64)
        self.lengths = np.concatenate([store.lengths for store in stores])
        self.starts = np.cumsum(self.lengths) - self.lengths
        lines = (line for store in stores for line in store.index)
        self.index = [{**line, "start": int(start)} for line, start in zip(lines, self.starts, strict=True)]
        self.meta = {"pass_through": first.pass_through}
        self.simulator = ", ".join(sorted({store.simulator for store in stores if store.simulator})) or None
        executed = all(store.knows_executed for store in stores)
        self._shapes = {name: shape for name, shape in first._shapes.items() if executed or name != "executed_action"}
        self._columns = {name: JoinedColumn([store._columns[name] for store in stores]) for name in self._shapes}

    @property
    def parts(self) -> tuple[EpisodeStore, ...]:
        return self._parts

    @property
    def name(self) -> str:
        return " + ".join(store.name for store in self._parts)

    @property
    def conventions(self) -> Conventions:
        """The facts that every dataset states alike."""
        return common_conventions([store.conventions for store in self._parts])

    @property
    def knows_phases(self) -> bool:
        return all(store.knows_phases for store in self._parts)

    def verify(self) -> None:
        for store in self._parts:
            store.verify()


def join(stores: Sequence[EpisodeStore]) -> EpisodeStore:
    """Returns the store itself, or a mixture of several stores."""
    return stores[0] if len(stores) == 1 else Mixture(stores)


def open_data(root: Path, data: DataConfig) -> EpisodeStore:
    """Opens the datasets of a cell under `root`; raises MuvlaError for a missing dataset or for datasets that do not
    fit."""
    return join([open_store(root, spec) for spec in data.datasets])


def _require_distinct(first: EpisodeStore, second: EpisodeStore) -> None:
    """Raises MuvlaError if both hold the same content, or tried the same seeds of one task."""
    if first.sha256 == second.sha256:
        raise _unlike(first, second, "the same content twice", "every dataset once", "remove one entry")
    # The seeds of all attempts: failed attempts use seeds beyond the number of episodes.
    seeds = range(max(first.seeds.start, second.seeds.start), min(first.seeds.stop, second.seeds.stop))
    if first.spec.task == second.spec.task and seeds:
        raise _unlike(
            first,
            second,
            f"seeds {seeds.start} to {seeds.stop - 1} of {second.spec.task.name} in both",
            "no episode twice",
            "collect one dataset from a seed after the other's last seed",
        )


def _require_alike(first: EpisodeStore, second: EpisodeStore) -> None:
    """Raises MuvlaError for unlike shapes of frames or unlike action dimensions without scaling."""
    for column in ("images", "proprio", "recorded_action"):
        got, expected = second[column].shape[1:], first[column].shape[1:]
        if got != expected:
            raise _unlike(
                first,
                second,
                f"{column} of shape {got}",
                f"{expected}, as in {first.name}",
                "give both one image size (image_size, --image-size), or train them apart",
            )
    if second.pass_through != first.pass_through:
        raise _unlike(
            first,
            second,
            f"action dimensions {second.pass_through} without scaling",
            f"{first.pass_through}, as in {first.name}",
            "import both with one schema",
        )


def _unlike(first: EpisodeStore, second: EpisodeStore, got: str, expected: str, remedy: str) -> MuvlaError:
    return MuvlaError(f"data.mixture: {first.name} and {second.name}", got=got, expected=expected, remedy=remedy)
