"""LeRobotDataset v3.0; `muvla.data.readers.lerobot` reads it back and describes the files.

Pictures lie in the parquet files, as PNG (`dtype: image`). Recorded columns that the format does not require are added
as the features `executed_action` and `phase`; derived ones are not. The column `about` of meta/episodes is a JSON
object with the other fields of the store's index: target, seed, lengths of cue and delay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from muvla.data.store import EpisodeStore
from muvla.data.writers.columns import encode_png, get_about, read_rows
from muvla.data.writers.lerobot_statistics import Statistics, Totals
from muvla.utils.io import write_json
from muvla.utils.packages import import_package

UNKNOWN_FPS = 20  # written for a store that does not know its frame rate: the format requires one
CAMERAS = ("top", "wrist")  # names of the published MIKASA datasets; further cameras are numbered
CHUNK_FILES = 1000  # most files in a folder
FILE_MEGABYTES = 100  # approximate size of a data file
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"


def write_lerobot(store: EpisodeStore, folder: Path, name: str, progress: Callable[[int, int], None]) -> str:
    """Writes the dataset and returns its folder, relative to `folder`.

    Args:
        store: the dataset.
        folder: an empty folder.
        name: unused; the format stores no name.
        progress: called with (episodes written, episodes).

    Raises:
        MuvlaError: pyarrow is missing.
    """
    arrow = import_package("pyarrow", "to write LeRobot's tables")
    parquet = import_package("pyarrow.parquet", "to write LeRobot's tables")
    features, tasks = _features(store), store.instructions
    schema = arrow.schema([(key, _arrow_type(arrow, feature)) for key, feature in features.items()])
    episodes: list[dict[str, Any]] = []
    totals = Totals()
    file, writer, written = -1, None, 0
    try:
        for number, line in enumerate(store.index):
            columns, statistics, size = _episode(store, number, features, tasks.index(line["instruction"]), totals)
            if writer is None or written + size > FILE_MEGABYTES * 2**20:
                if writer is not None:
                    writer.close()
                file, written = file + 1, 0
                path = folder / "data" / f"{_place(file)}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = parquet.ParquetWriter(path, schema, compression="snappy")
            writer.write_table(arrow.table(columns, schema=schema))
            written += size
            episodes.append(_episode_row(line, number, file, statistics))
            progress(number + 1, len(store))
    finally:
        if writer is not None:
            writer.close()
    meta = folder / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    parquet.write_table(arrow.Table.from_pylist(episodes), meta / "episodes" / f"{_place(0)}.parquet")
    table = pandas.DataFrame({"task_index": range(len(tasks))}, index=pandas.Index(tasks, name="task"))
    table.to_parquet(meta / "tasks.parquet")
    write_json(meta / "stats.json", _lists(totals.describe()))
    write_json(meta / "info.json", _info(store, features, len(tasks)))
    return ""


def _place(number: int) -> str:
    return PLACE.format(chunk_index=number // CHUNK_FILES, file_index=number % CHUNK_FILES)


def frame_rate(store: EpisodeStore) -> float:
    """Returns the steps per second of a store, or UNKNOWN_FPS."""
    fps = store.conventions.fps or UNKNOWN_FPS
    return int(fps) if fps == int(fps) else fps


def camera_features(store: EpisodeStore) -> list[str]:
    """Returns the names of the features with pictures."""
    number = store["images"].shape[1]
    names = [*CAMERAS, *(f"camera_{i}" for i in range(len(CAMERAS), number))]
    return [f"observation.images.{name}" for name in names[:number]]


def _features(store: EpisodeStore) -> dict[str, dict[str, Any]]:
    """Returns the features as info.json describes them."""
    h, w, channels = store["images"].shape[2:]
    image = {"dtype": "image", "shape": [h, w, channels], "names": ["height", "width", "channels"]}
    features: dict[str, dict[str, Any]] = dict.fromkeys(camera_features(store), image)
    names = store.names
    features["observation.state"] = _vector("float32", store["proprio"].shape[1], names.get("proprio"))
    features["action"] = _vector("float32", store["recorded_action"].shape[1], names.get("action"))
    if store.knows_phases:
        features |= {"executed_action": features["action"], "phase": _vector("int64", 1)}
    features["timestamp"] = _vector("float32", 1)
    return features | {key: _vector("int64", 1) for key in ("frame_index", "episode_index", "index", "task_index")}


def _vector(dtype: str, size: int, names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [size], "names": names}


def _arrow_type(arrow, feature: dict[str, Any]):
    if feature["dtype"] == "image":
        return arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    scalar = getattr(arrow, feature["dtype"])()
    return scalar if feature["shape"] == [1] else arrow.list_(scalar, feature["shape"][0])


def _episode(
    store: EpisodeStore, number: int, features: dict[str, dict[str, Any]], task: int, totals: Totals
) -> tuple[dict[str, list], dict[str, Statistics], int]:
    """Returns the columns of an episode's rows, their statistics, and their approximate number of bytes.

    Args:
        store: the dataset.
        number: number of the episode.
        features: as info.json describes them.
        task: the episode's task_index.
        totals: the statistics of all frames; the episode is added.
    """
    stored, line = read_rows(store, number), store.index[number]
    steps = np.arange(line["length"])
    values: dict[str, np.ndarray] = {
        "observation.state": stored["proprio"],
        "action": stored["recorded_action"],
        "phase": stored.get("phase"),
        "executed_action": stored.get("executed_action"),
        "timestamp": steps / frame_rate(store),
        "frame_index": steps,
        "episode_index": np.full(len(steps), number),
        "index": line["start"] + steps,
        "task_index": np.full(len(steps), task),
    }
    columns, numbers, images, size = {}, {}, {}, 0
    pictures = iter(np.moveaxis(stored["images"], 1, 0))
    for key, feature in features.items():
        if feature["dtype"] == "image":
            images[key] = next(pictures)
            columns[key] = [
                {"bytes": encode_png(image), "path": f"{key}-{number:06d}-{step:06d}.png"}
                for step, image in enumerate(images[key])
            ]
            size += sum(len(cell["bytes"]) for cell in columns[key])
        else:
            numbers[key] = values[key].reshape(len(steps), -1).astype(feature["dtype"])
            columns[key] = list(numbers[key][:, 0]) if feature["shape"] == [1] else list(numbers[key])
            size += numbers[key].nbytes
    return columns, totals.add(numbers, images), size


def _episode_row(line: dict[str, Any], number: int, file: int, statistics: dict) -> dict[str, Any]:
    """Returns an episode's row of meta/episodes.

    Args:
        line: the episode's index line.
        number: number of the episode.
        file: number of its data file.
        statistics: of the episode, by feature.
    """
    row = {
        "episode_index": number,
        "tasks": [line["instruction"]],
        "length": line["length"],
        "data/chunk_index": file // CHUNK_FILES,
        "data/file_index": file % CHUNK_FILES,
        "dataset_from_index": line["start"],
        "dataset_to_index": line["start"] + line["length"],
    }
    for key, values in _lists(statistics).items():
        row |= {f"stats/{key}/{name}": value for name, value in values.items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, "about": json.dumps(get_about(line))}


def _info(store: EpisodeStore, features: dict[str, dict[str, Any]], tasks: int) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(store),
        "total_frames": store.frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": FILE_MEGABYTES,
        "video_files_size_in_mb": 200,
        "fps": frame_rate(store),
        "splits": {"train": f"0:{len(store)}"},
        "data_path": f"data/{PLACE}.parquet",
        "video_path": None,
        "features": features,
    }


def _lists(statistics: dict[str, Statistics]) -> dict[str, dict[str, list]]:
    return {key: {name: value.tolist() for name, value in values.items()} for key, values in statistics.items()}
