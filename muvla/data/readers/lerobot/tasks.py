"""The instructions of a LeRobotDataset, by `task_index`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from muvla.data.readers.lerobot.episodes import read_lines
from muvla.data.readers.lerobot.info import NEW, Info
from muvla.data.readers.lerobot.missing import fetch_command
from muvla.errors import MuvlaError
from muvla.utils.foreign import decode
from muvla.utils.tables import get_column, read_table

INSTRUCTION = "task"  # an undeclared feature: the text of each row's task_index
LINES, TABLE = "meta/tasks.jsonl", "meta/tasks.parquet"  # v2, v3
UNNAMED_INDEX = "__index_level_0__"  # pandas' name of an index without a name


class _Line(msgspec.Struct):
    task_index: Annotated[int, msgspec.Meta(ge=0)]
    task: str


def read_tasks(info: Info) -> dict[int, str]:
    """Returns the texts by task_index. Raises MuvlaError for a missing or broken file and an ambiguous column."""
    if info.version != NEW:
        file = info.root / LINES
        lines = [decode(data, _Line, f"{file}:{number}") for number, data in read_lines(file)]
        return _by_number(((line.task_index, line.task) for line in lines), str(file))
    file = info.root / TABLE
    table = read_table(file)
    numbers = get_column(table, "task_index", str(file), "integer")
    texts = get_column(table, _text_column(table, str(file)), str(file), "text", nulls=True)
    return _by_number(zip(numbers, (text or "" for text in texts), strict=True), str(file))


def _by_number(pairs: Iterable[tuple[int, str]], field: str) -> dict[int, str]:
    texts: dict[int, str] = {}
    for number, text in pairs:
        if texts.setdefault(number, text) != text:
            raise MuvlaError(
                f"{field}: task_index {number}",
                got=f"two texts, {texts[number]!r} and {text!r}",
                expected="one text per task_index",
                remedy="two versions of the tasks are mixed: " + fetch_command(Path(field).parents[1], "meta/*"),
            )
    return texts


def _text_column(table, field: str) -> str:
    """Returns the column of the texts: `task`, or the index that pandas stored, which LeRobot reads as `task`."""
    others = [name for name in table.column_names if name != "task_index"]
    indices = [name for name in _pandas_index(table.schema.metadata) if name in others]
    for name in ("task", *indices, UNNAMED_INDEX):
        if name in others:
            return name
    if len(others) == 1:
        return others[0]
    raise MuvlaError(
        f"{field}: task",
        got=f"columns {', '.join(others) or 'none'} beside task_index",
        expected="the instructions in the column `task`",
        remedy="rename the column of the instructions to `task`, or give the instruction with --instruction",
    )


def _pandas_index(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    """Returns the names of the columns that pandas stored as an index."""
    try:
        names = json.loads((metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
