"""Imports published demonstrations into the episode store.

Phases, targets and executed actions that the files omit stay unknown, or a declared rule derives them
(`muvla.data.derived_phases`). Code that needs unknown columns refuses the dataset.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from muvla.config import DatasetConfig, TaskConfig
from muvla.data.conventions import get_conventions
from muvla.data.derived_phases import RuleAccuracy, derive
from muvla.data.readers.schema import Schema, read_demonstrations
from muvla.data.readers.selection import Selection, select
from muvla.data.readers.source import Source
from muvla.data.store import (
    EpisodeStore,
    EpisodeWriter,
    get_store_path,
    is_sealed,
    open_store,
    require_same_import,
    restate_conventions,
)
from muvla.data.unfinished import remove_outdated, removed_after_error
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.errors import DiskError, MuvlaError
from muvla.utils.io import disk_errors
from muvla.utils.locks import locked
from muvla.utils.names import make_name


def import_dataset(
    source: Source,
    schema: Schema,
    spec: DatasetConfig,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    accuracy: RuleAccuracy | None = None,
    stated: Conventions = NOTHING_STATED,
    selection: Selection | None = None,
) -> EpisodeStore:
    """Returns the dataset of `spec` under `root`: opened if it exists, continued if it was interrupted, else imported.

    Args:
        source: the opened files.
        schema: the features to read.
        spec: result of `import_config`.
        root: folder of all datasets.
        progress: called with (episodes written, episodes).
        say: called with lines about the required disk space, a removed import and the files.
        accuracy: derives phases and executed actions; the accuracy of the rule on another dataset.
        stated: conventions that the user states; they replace those of the files, also in a finished import.
        selection: the episodes to import; all by default.

    Raises:
        MuvlaError: the files lack the schema's features or cannot be read; they record executed actions that were
            to be derived; or another import has the name.
        DiskError: the disk has no room.
    """
    schema.check(source)
    if accuracy is not None and schema.knows_executed:
        raise MuvlaError(
            "--derive", got=schema.name, expected="a schema without executed actions", remedy="omit --derive"
        )
    conventions = get_conventions(source, schema, stated)
    chosen = selection or select(source, schema)
    path, origin = get_store_path(root, spec), _describe_origin(source, schema, chosen)
    rule = None if accuracy is None else accuracy.meta()
    if rule is not None:
        origin += f", derived by {rule['rule']}"
    _require_elsewhere(path, source.path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / "lock", wait=True):
        if is_sealed(path):
            store = open_store(root, spec)
            require_same_import(path, store.meta, spec, origin)
            restate_conventions(path, conventions)
            return open_store(root, spec)
        facts = {"pass_through": schema.pass_through, "derived": rule, "conventions": conventions}
        facts["names"] = _names(source, schema)
        remove_outdated(path, spec, origin, source.path, say)
        writer = EpisodeWriter(path, spec, origin=origin, **facts)
        with removed_after_error(path):
            _require_room(source, schema, writer, say, accuracy is not None, chosen)
            for note in sorted(_write(source, schema, writer, chosen, progress, accuracy is not None)):
                say(f"{source.name}: {note}")
    return open_store(root, spec)


def _write(
    source: Source,
    schema: Schema,
    writer: EpisodeWriter,
    selection: Selection,
    progress: Callable[[int, int], None],
    deriving: bool,
) -> set[str]:
    """Writes the remaining episodes, seals the dataset, and returns the notes of the records."""
    spec, total, notes = writer.spec, len(selection.numbers), set[str]()
    remaining = selection.numbers[len(writer.index) :]
    options = (spec.task.name, spec.image_size, remaining, notes.update)
    for episode in read_demonstrations(source, schema, *options):
        writer.append(derive(episode) if deriving else episode)
        progress(len(writer.index), total)
    writer.seal(attempts=len(writer.index))
    return notes


def _names(source: Source, schema: Schema) -> dict[str, list[str]]:
    """Returns the cameras' paths, and words for the numbers of proprio and action where every joined feature has
    them."""
    joined = {
        column: [source.feature(path).names for path in paths]
        for column, paths in (("proprio", schema.proprio), ("action", schema.action))
    }
    words = {column: [name for names in parts for name in names] for column, parts in joined.items() if all(parts)}
    return words | {"cameras": list(schema.cameras)}


def _require_elsewhere(path: Path, files: Path) -> None:
    """Raises MuvlaError if the import would be written among the files that it reads."""
    with disk_errors(path):
        target, files = path.resolve(), files.resolve()
    if target == files or target.is_relative_to(files):
        raise MuvlaError(
            "--name",
            got=str(path),
            expected="a folder that is not the imported one, nor below it",
            remedy="pass another --name or another --data",
        )


def _describe_origin(source: Source, schema: Schema, selection: Selection) -> str:
    """Returns the files, the features and the choice of episodes in words."""
    origin = source.origin if schema.text is None else f"{source.origin}, instruction {schema.text!r}"
    origin += f" as {schema.name}"
    return f"{origin}, {selection.shown}" if selection.shown else origin


def import_config(
    source: Source, task: str, name: str | None = None, image_size: int | None = None, episodes: int | None = None
) -> DatasetConfig:
    """Returns the DatasetConfig that a study writes to use the import.

    Args:
        source: the opened files.
        task: the task that the demonstrations show.
        name: name of the import; the folder's name by default.
        image_size: side of the stored frames in pixels; None keeps the size.
        episodes: number of imported episodes; all by default.
    """
    if image_size is not None and image_size < 1:
        raise MuvlaError(
            "--image-size", got=image_size, expected="at least 1", remedy="omit --image-size to keep the size"
        )
    count = len(source) if episodes is None else episodes
    return DatasetConfig(TaskConfig(task), count, image_size=image_size, source=name or make_safe(source.name))


def make_safe(name: str) -> str:
    """Returns the name of a dataset's folder that is nearest to a name: letters, digits, _, - and dots."""
    return re.sub(r"[^\w.-]+", "_", make_name(name)).lstrip(".") or "imported"


def _require_room(
    source: Source,
    schema: Schema,
    writer: EpisodeWriter,
    say: Callable[[str], None],
    deriving: bool,
    selection: Selection,
) -> None:
    """Raises DiskError if the remaining frames, which are stored raw, do not fit on the disk."""
    record = next(source.records(schema.features, selection.numbers[:1]))
    first = {name: np.asarray(record.values[name]) for name in schema.features}
    size = writer.spec.image_size
    pixels = sum(size**2 if size else int(np.prod(first[name].shape[1:3])) for name in schema.cameras)
    actions = 2 if deriving or schema.knows_executed else 1
    numbers = _width(first, schema.proprio) + actions * _width(first, schema.action)
    frames = source.frames * len(selection.numbers) / len(source)  # as if all episodes were of one length
    need = max(0, frames - writer.frames) * (3 * pixels + 4 * numbers + 1)
    free = shutil.disk_usage(writer.path).free
    say(f"{writer.path} needs about {need / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free")
    if need > free:
        raise DiskError(
            str(writer.path),
            got=f"{free / 2**30:.2f} GiB free",
            expected=f"about {need / 2**30:.2f} GiB",
            remedy="free disk space, pass another --data, or store smaller frames with --image-size",
        )


def _width(values: dict[str, np.ndarray], paths: tuple[str, ...]) -> int:
    """Returns the numbers per step of joined features."""
    return sum(int(np.prod(values[path].shape[1:])) for path in paths)
