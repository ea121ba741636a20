"""A format of published demonstrations, as `muvla.data.readers.formats` registers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Source


@dataclass(frozen=True)
class Format:
    """A format of published demonstrations.

    layout: the files, for errors.
    matches: True if a path holds this format, by the content.
    open: opens a path.
    schemas: schemas by the name for `--schema`.
    suggest: name of the schema that an opened dataset has, where its files say so.
    """

    layout: str
    matches: Callable[[Path], bool]
    open: Callable[[Path], Source]
    schemas: dict[str, Schema]
    suggest: Callable[[Source], str | None] = lambda source: None


def by_name(*schemas: Schema) -> dict[str, Schema]:
    """Returns the schemas by their names."""
    return {schema.name: schema for schema in schemas}
