"""The rows of data/ by episode.

All files are searched for an episode that its own file does not hold: LeRobot joins all files, and a published
converter left outdated file numbers in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from muvla.data.readers.lerobot.episodes import Episode
from muvla.data.readers.lerobot.links import require_inside
from muvla.data.readers.lerobot.missing import fetch_command
from muvla.errors import MuvlaError
from muvla.utils.packages import import_package
from muvla.utils.tables import get_column, read_table

ALWAYS = ("episode_index", "index", "frame_index")


class Rows:
    """Reads episodes; holds the columns of one file in memory."""

    def __init__(self, root: Path):
        self.root = root
        self._runs: dict[Path, dict[int, list[tuple[int, int]]]] = {}  # file → episode → (first row, end) of its rows
        self._file: Path | None = None
        self._columns: frozenset[str] = frozenset()
        self._table = None

    def read(self, episode: Episode, columns: Iterable[str], where: str):
        """Returns the rows of an episode as a `pyarrow.Table`, in order.

        Args:
            episode: the episode.
            columns: further columns to read; a column that the file lacks is left out.
            where: the episode, for errors.

        Raises:
            MuvlaError: a file is missing or broken, or the rows contradict the metadata.
        """
        arrow = import_package("pyarrow", "to read LeRobot's tables")
        wanted = frozenset((*columns, *ALWAYS))
        pieces = []
        for file in self._files_of(episode, wanted):
            table = self._read(file, wanted)
            pieces += [table.slice(first, end - first) for first, end in self._runs[file].get(episode.number, [])]
        if not pieces:
            raise self._absent(episode)
        rows = pieces[0] if len(pieces) == 1 else arrow.concat_tables(pieces)
        self._require_whole(rows, episode, where)
        return rows

    def require_file(self, episode: Episode) -> None:
        """Raises MuvlaError if the file of an episode is missing and no other file holds its rows."""
        if not episode.file.exists() and not self._search(episode):
            raise self._absent(episode)

    def _files_of(self, episode: Episode, wanted: frozenset[str]) -> list[Path]:
        """Returns the file that the metadata name if it holds the whole episode, else every file with rows of it."""
        if episode.file.exists():
            self._read(episode.file, wanted)
            runs = self._runs[episode.file].get(episode.number, [])
            if sum(end - first for first, end in runs) == episode.length:
                return [episode.file]
        return self._search(episode)

    def _search(self, episode: Episode) -> list[Path]:
        files = sorted((self.root / "data").glob("*/*.parquet"))
        for file in files:
            if file not in self._runs:
                self._remember(file, read_table(require_inside(self.root, file), lambda name: name == "episode_index"))
        return [file for file in files if episode.number in self._runs[file]]

    def _read(self, file: Path, wanted: frozenset[str]):
        if self._file != file or not wanted <= self._columns:
            self._table = None  # frees the last table: two tables would take twice the memory
            self._table = read_table(require_inside(self.root, file), lambda name: name in wanted)
            self._file, self._columns = file, wanted
            self._remember(file, self._table)
        return self._table

    def _remember(self, file: Path, table) -> None:
        numbers = np.array(get_column(table, "episode_index", str(file), "integer"), dtype=np.int64)
        edges = np.flatnonzero(np.diff(numbers)) + 1
        starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(numbers)]
        runs: dict[int, list[tuple[int, int]]] = {}
        for first, end in zip(starts, ends, strict=True):
            if end > first:
                runs.setdefault(int(numbers[first]), []).append((first, end))
        self._runs[file] = runs

    def _require_whole(self, rows, episode: Episode, where: str) -> None:
        """Raises MuvlaError if the rows are not the episode's, in order."""
        start = episode.start
        for name, first in (("index", start), ("frame_index", 0)):
            present = first is not None and name in rows.column_names
            numbers = get_column(rows, name, where, "integer") if present else range(episode.length)
            first = first if present else 0
            if len(rows) == episode.length and list(numbers) == list(range(first, first + episode.length)):
                continue
            stated = f"{episode.length} rows" + (
                f", of {name} {first} to {first + episode.length - 1}" if present else ""
            )
            raise MuvlaError(
                f"{where}: {episode.file}",
                got=f"{len(rows)} rows of the episode"
                + ("" if len(rows) != episode.length else f", of other {name} or order"),
                expected=f"{stated}, by meta/",
                remedy="data/ and meta/ are of different versions: fetch both of one version, "
                f"{fetch_command(self.root, '*')}; or leave this episode out with --episodes",
            )

    def _absent(self, episode: Episode) -> MuvlaError:
        file = episode.file
        if not file.exists():
            return MuvlaError(
                str(file),
                got="no such file",
                expected=f"the rows of episode {episode.number}, which no other file of data/ holds",
                remedy=f"{fetch_command(self.root, str(file.relative_to(self.root)))}; or leave this episode out with "
                "--episodes",
            )
        return MuvlaError(
            f"{self.root}: episode {episode.number}: {file}",
            got="0 rows of the episode in all files of data/",
            expected=f"{episode.length} rows, by meta/",
            remedy="data/ is incomplete or older than meta/: "
            f"{fetch_command(self.root, 'data/*')}; or leave this episode out with --episodes",
        )
