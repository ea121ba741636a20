"""Parquet tables that others wrote: sizes before values are read, columns of declared types, no empty cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from muvla.errors import MuvlaError
from muvla.utils.arrays import require_size
from muvla.utils.files import require_file
from muvla.utils.packages import import_package

PURPOSE = "to read parquet tables"
ROWS = 100_000_000


def read_table(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> Any:
    """Read a parquet file as a `pyarrow.Table`.

    Args:
        path: the file.
        wanted: chooses columns by name.

    Raises:
        MuvlaError: the file is missing, a Git LFS pointer or no whole parquet file, or claims more than it can hold.
    """
    arrow, parquet = import_package("pyarrow", PURPOSE), import_package("pyarrow.parquet", PURPOSE)
    size = require_file(path)
    try:
        with path.open("rb") as source:  # pyarrow itself opens no path that is not UTF-8
            file = parquet.ParquetFile(source, thrift_string_size_limit=2**27, thrift_container_size_limit=2**22)
            names = [name for name in file.schema_arrow.names if wanted(name)]
            groups = [file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups)]
            require_size((sum(max(group, 0) for group in groups),), 1, size, str(path))
            require_size((max(file.metadata.num_rows, 0), len(names)), 8, size, f"{path}: rows")
            return file.read(columns=names)
    except MuvlaError:
        raise
    except (arrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise MuvlaError(
            str(path),
            got=f"no whole parquet file ({error})",
            expected="a whole parquet file",
            remedy="restore the file from its source, or write the table again with the program that made it",
        ) from None


def get_column(table: Any, name: str, field: str, content: str = "any", nulls: bool = False) -> list[Any]:
    """Return a column of a table as a list.

    Args:
        table: a `pyarrow.Table`.
        name: the column.
        field: the file, for errors.
        content: `integer`, `number`, `text`, `texts` (lists of text) or `any`.
        nulls: accept empty cells, which become None.

    Raises:
        MuvlaError: no such column, another type, an empty cell, text that is no UTF-8, or a number that is not finite.
    """
    arrow = import_package("pyarrow", PURPOSE)
    where = f"{field}: {name}"
    if table.column_names.count(name) != 1:
        names = ", ".join(table.column_names[:20]) or "nothing"
        raise _other(where, f"{table.column_names.count(name)} columns of this name among {names}", "one column")
    column = table.column(name)
    types = arrow.types
    fits = {
        "integer": types.is_integer(column.type),
        "number": types.is_integer(column.type) or types.is_floating(column.type),
        "text": types.is_string(column.type) or types.is_large_string(column.type),
        "texts": types.is_list(column.type) or types.is_large_list(column.type),
        "any": True,
    }
    if not fits[content]:
        raise _other(where, f"a column of type {column.type}", _CONTENTS[content])
    try:
        values = column.to_pylist()
    except (arrow.ArrowException, ValueError, OverflowError) as error:
        raise _other(where, f"cells that cannot be read ({error})", _CONTENTS[content]) from None
    _require_cells(values, where, content, nulls)
    return values


_CONTENTS = {
    "integer": "whole numbers",
    "number": "finite numbers",
    "text": "text",
    "texts": "lists of text",
    "any": "values that can be read",
}


def _require_cells(values: list[Any], where: str, content: str, nulls: bool) -> None:
    for row, value in enumerate(values):
        if value is None:
            if not nulls:
                raise _other(where, f"an empty cell in row {row}", _CONTENTS[content])
        elif content == "number" and not -float("inf") < value < float("inf"):
            raise _other(where, f"{value} in row {row}", _CONTENTS[content])
        elif content == "texts" and not all(isinstance(text, str) for text in value):
            raise _other(where, f"no text in row {row}", _CONTENTS[content])


def _other(field: str, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        field,
        got=got,
        expected=expected,
        remedy="write the table again with the format's own program, whose columns have this type",
    )
