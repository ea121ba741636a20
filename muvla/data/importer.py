"""Published demonstrations into the episode store.

What they do not tell stays unknown: phases, targets and what was executed; or is derived by a declared rule
(`muvla.data.derived_phases`). What needs the rest refuses them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from muvla.config import DatasetConfig, TaskConfig
from muvla.data.derived_phases import Check, derived
from muvla.data.readers.schema import Schema, demonstrations
from muvla.data.readers.source import Source
from muvla.data.store import EpisodeStore, EpisodeWriter, is_sealed, open_store, require_same_import, store_path
from muvla.errors import DiskError, MuvlaError
from muvla.utils.io import disk_errors, locked


def import_dataset(
    source: Source,
    schema: Schema,
    spec: DatasetConfig,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    derive: Check | None = None,
) -> EpisodeStore:
    """The dataset as `spec` of `import_config` under `root`: opened if it is there, continued if it was interrupted,
    else read. `say` is told the disk that it needs before anything is written. With `derive`, the accuracy of the rule
    elsewhere, phases and executed actions are derived.

    Raises MuvlaError for a dataset that does not have the schema, for one that cannot be read (see the readers), for
    one that already tells what was to be derived, for a disk without room, and for a name that another import has.
    """
    schema.check(source)
    if derive is not None and schema.executed is not None:
        raise MuvlaError(
            "--derive", got=schema.name, expected="a schema that does not tell what was executed", remedy="leave it out"
        )
    path, origin = store_path(root, spec), f"{source.origin} as {schema.name}"
    rule = None if derive is None else derive.meta()
    if rule is not None:
        origin += f", derived by {rule['rule']}"
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / "lock", wait=True):
        if is_sealed(path):
            store = open_store(root, spec)
            require_same_import(path, store.meta, spec, origin)
            return store
        writer = EpisodeWriter(path, spec, origin=origin, pass_through=schema.pass_through, derived=rule)
        _require_room(source, schema, writer, say, derive is not None)
        for episode in demonstrations(source, schema, spec.task.name, spec.image_size, skip=len(writer.index)):
            writer.append(episode if derive is None else derived(episode))
            progress(len(writer.index), len(source))
        writer.seal(attempts=len(writer.index))
    return open_store(root, spec)


def import_config(source: Source, task: str, name: str | None = None, image_size: int | None = None) -> DatasetConfig:
    """What a study writes to use the import; without a name it has that of the dataset's folder."""
    if image_size is not None and image_size < 1:
        raise MuvlaError("--image-size", got=image_size, expected="at least 1", remedy="leave it out to keep the size")
    return DatasetConfig(TaskConfig(task), len(source), image_size=image_size, source=name or source.name)


def _require_room(
    source: Source, schema: Schema, writer: EpisodeWriter, say: Callable[[str], None], deriving: bool
) -> None:
    """Raises DiskError if what is still to be written does not fit. Frames are stored raw."""
    first = next(source.records(schema.features)).values
    size = writer.spec.image_size
    pixels = sum(size**2 if size else first[one].shape[1] * first[one].shape[2] for one in schema.cameras)
    actions = 2 if deriving or schema.executed else 1
    numbers = first[schema.proprio].shape[1] + actions * first[schema.action].shape[1]
    need = max(0, source.frames - writer.frames) * (3 * pixels + 4 * numbers + 1)
    free = shutil.disk_usage(writer.path).free
    say(f"{writer.path} needs about {need / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free")
    if need > free:
        raise DiskError(
            str(writer.path),
            got=f"{free / 2**30:.2f} GiB free",
            expected=f"about {need / 2**30:.2f} GiB",
            remedy="free some space, choose another --data, or store smaller frames with --image-size",
        )
