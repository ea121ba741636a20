"""Published demonstrations into the episode store.

What they do not tell stays unknown: phases, targets and what was executed. What needs these refuses them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from muvla.config import DatasetConfig, TaskConfig
from muvla.data.episodes import EpisodeStore, EpisodeWriter, is_sealed, open_store, require_same_import, store_path
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.readers.schema import Schema, demonstrations
from muvla.errors import DiskError, MuvlaError
from muvla.files import disk_errors, locked


def import_dataset(
    directory: RldsDirectory,
    schema: Schema,
    spec: DatasetConfig,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> EpisodeStore:
    """The dataset as `spec` of `import_config` under `root`: opened if it is there, continued if it was interrupted,
    else read. `say` is told the disk that it needs before anything is written.

    Raises MuvlaError for a dataset that does not have the schema, for one that cannot be read (see the readers), for a
    disk without room, and for a name that another import has.
    """
    schema.check(directory)
    path, origin = store_path(root, spec), _origin(directory, schema)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / "lock", wait=True):
        if is_sealed(path):
            store = open_store(root, spec)
            require_same_import(path, store.meta, spec, origin)
            return store
        writer = EpisodeWriter(path, spec, origin=origin, pass_through=schema.pass_through)
        _require_room(directory, schema, writer, say)
        for episode in demonstrations(directory, schema, spec.task.name, spec.image_size, skip=len(writer.index)):
            writer.append(episode)
            progress(len(writer.index), len(directory))
        writer.seal(attempts=len(writer.index))
    return open_store(root, spec)


def import_config(
    directory: RldsDirectory, task: str, name: str | None = None, image_size: int | None = None
) -> DatasetConfig:
    """What a study writes to use the import; without a name it has that of the dataset's folder."""
    if image_size is not None and image_size < 1:
        raise MuvlaError("--image-size", got=image_size, expected="at least 1", remedy="leave it out to keep the size")
    return DatasetConfig(TaskConfig(task), len(directory), image_size=image_size, source=name or directory.name)


def _origin(directory: RldsDirectory, schema: Schema) -> str:
    """What an import may only be continued from: told by names and sizes, as hashing takes as long as importing."""
    name, version = directory.info.get("name"), directory.info.get("version")
    return f"{name} {version} (RLDS, {len(directory)} episodes, {directory.bytes} bytes) as {schema.name}"


def _require_room(directory: RldsDirectory, schema: Schema, writer: EpisodeWriter, say: Callable[[str], None]) -> None:
    """Raises DiskError if what is still to be written does not fit. Frames are stored raw, and how many there are no
    file tells: the first record's share of the bytes stands for all."""
    first = next(directory.records(schema.features))
    frames = len(first.values[schema.action])
    size = writer.spec.image_size
    pixels = sum(size**2 if size else image.shape[1] * image.shape[2] for image in
                 (first.values[camera] for camera in schema.cameras))  # fmt: skip
    each = 3 * pixels + 4 * (schema.proprio_dim + schema.action_dim) + 1
    need = max(0, directory.bytes * frames // first.size - writer.frames) * each
    free = shutil.disk_usage(writer.path).free
    say(f"{writer.path} needs about {need / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free")
    if need > free:
        raise DiskError(
            str(writer.path), got=f"{free / 2**30:.2f} GiB free", expected=f"about {need / 2**30:.2f} GiB",
            remedy="free some space, choose another --data, or store smaller frames with --image-size",
        )  # fmt: skip
