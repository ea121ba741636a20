"""LeRobotDataset v3.0; `muvla.data.readers.lerobot` reads it back and describes the files.

Pictures lie in the parquet files, as PNG (`dtype: image`). Beyond what the format asks for, where they are known and
not derived: the features `executed_action` and `phase`; and in meta/episodes a column `about`, a JSON object of what
the store's index tells of the episode: target, seed, lengths of cue and delay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from muvla.data.readers.source import need
from muvla.data.store import EpisodeStore
from muvla.data.writers.columns import about, png, rows
from muvla.utils.io import write_json

FPS = 20  # steps have no duration in a store; this is ManiSkill's control frequency, and makes the timestamps
CAMERAS = ("top", "wrist")  # as the published MIKASA datasets name them; any more are numbered
CHUNK_FILES = 1000  # at most, in a folder
FILE_MEGABYTES = 100  # of a data file, about
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"


def write_lerobot(store: EpisodeStore, folder: Path, name: str, progress: Callable[[int, int], None]) -> str:
    """Returns the dataset's folder, below `folder`. Raises MuvlaError without pyarrow."""
    arrow = need("pyarrow", "to write LeRobot's tables")
    parquet = need("pyarrow.parquet", "to write LeRobot's tables")
    features, tasks = _features(store), store.instructions
    schema = arrow.schema([(key, _arrow_type(arrow, told)) for key, told in features.items()])
    episodes: list[dict[str, Any]] = []
    all_statistics: list[dict[str, dict[str, np.ndarray]]] = []
    file, writer, written = -1, None, 0
    try:
        for number, line in enumerate(store.index):
            columns, statistics, size = _episode(store, number, features, tasks.index(line["instruction"]))
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
            all_statistics.append(statistics)
            progress(number + 1, len(store))
    finally:
        if writer is not None:
            writer.close()
    meta = folder / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    parquet.write_table(arrow.Table.from_pylist(episodes), meta / "episodes" / f"{_place(0)}.parquet")
    table = pandas.DataFrame({"task_index": range(len(tasks))}, index=pandas.Index(tasks, name="task"))
    table.to_parquet(meta / "tasks.parquet")
    write_json(meta / "stats.json", _lists(_pooled(all_statistics)))
    write_json(meta / "info.json", _info(store, features, len(tasks)))
    return ""


def _place(number: int) -> str:
    return PLACE.format(chunk_index=number // CHUNK_FILES, file_index=number % CHUNK_FILES)


def cameras(store: EpisodeStore) -> list[str]:
    """The features that hold the pictures."""
    number = store["images"].shape[1]
    names = [*CAMERAS, *(f"camera_{i}" for i in range(len(CAMERAS), number))]
    return [f"observation.images.{name}" for name in names[:number]]


def _features(store: EpisodeStore) -> dict[str, dict[str, Any]]:
    """As info.json tells them."""
    h, w, channels = store["images"].shape[2:]
    image = {"dtype": "image", "shape": [h, w, channels], "names": ["height", "width", "channels"]}
    told: dict[str, dict[str, Any]] = dict.fromkeys(cameras(store), image)
    told["observation.state"] = _vector("float32", store["proprio"].shape[1])
    told["action"] = _vector("float32", store["recorded_action"].shape[1])
    if store.knows_phases:
        told |= {"executed_action": told["action"], "phase": _vector("int64", 1)}
    told["timestamp"] = _vector("float32", 1)
    return told | {key: _vector("int64", 1) for key in ("frame_index", "episode_index", "index", "task_index")}


def _vector(dtype: str, size: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [size], "names": None}


def _arrow_type(arrow, told: dict[str, Any]):
    if told["dtype"] == "image":
        return arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    scalar = getattr(arrow, told["dtype"])()
    return scalar if told["shape"] == [1] else arrow.list_(scalar, told["shape"][0])


def _episode(
    store: EpisodeStore, number: int, features: dict[str, dict[str, Any]], task: int
) -> tuple[dict[str, list], dict[str, dict[str, np.ndarray]], int]:
    """The columns of an episode's rows, their statistics, and about how many bytes they are."""
    own, line = rows(store, number), store.index[number]
    steps = np.arange(line["length"])
    values: dict[str, np.ndarray] = {
        "observation.state": own["proprio"],
        "action": own["recorded_action"],
        "phase": own.get("phase"),
        "executed_action": own.get("executed_action"),
        "timestamp": (steps / FPS).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(steps), number),
        "index": line["start"] + steps,
        "task_index": np.full(len(steps), task),
    }
    pictures = iter(np.moveaxis(own["images"], 1, 0))
    columns, statistics, size = {}, {}, 0
    for key, told in features.items():
        if told["dtype"] == "image":
            images = next(pictures)
            columns[key] = [
                {"bytes": png(image), "path": f"{key}-{number:06d}-{step:06d}.png"} for step, image in enumerate(images)
            ]
            size += sum(len(cell["bytes"]) for cell in columns[key])
            channels = np.moveaxis(images, -1, 1).reshape(len(images), 3, -1).astype(np.float64) / 255
            statistics[key] = {name: value[:, None, None] for name, value in _statistics(channels, (0, 2)).items()}
        else:
            value = values[key].reshape(len(steps), -1)
            column = value.astype(told["dtype"])
            columns[key] = list(column[:, 0]) if told["shape"] == [1] else list(column)
            size += column.nbytes
            statistics[key] = _statistics(value.astype(np.float64), (0,))
        statistics[key]["count"] = np.array([len(steps)])
    return columns, statistics, size


def _statistics(values: np.ndarray, axes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: getattr(values, name)(axis=axes) for name in ("min", "max", "mean", "std")}


def _pooled(episodes: list[dict[str, dict[str, np.ndarray]]]) -> dict[str, dict[str, np.ndarray]]:
    """Over all frames, from those of the episodes: variances add up with those of the means."""
    pooled = {}
    for key in episodes[0]:
        told = {name: np.stack([one[key][name] for one in episodes]) for name in ("min", "max", "mean", "std")}
        counts = np.array([one[key]["count"][0] for one in episodes])
        weight = (counts / counts.sum()).reshape(-1, *[1] * (told["mean"].ndim - 1))
        mean = (weight * told["mean"]).sum(axis=0)
        variance = (weight * (told["std"] ** 2 + (told["mean"] - mean) ** 2)).sum(axis=0)
        pooled[key] = {
            "min": told["min"].min(axis=0),
            "max": told["max"].max(axis=0),
            "mean": mean,
            "std": np.sqrt(variance),
            "count": np.array([counts.sum()]),
        }
    return pooled


def _episode_row(line: dict[str, Any], number: int, file: int, statistics: dict) -> dict[str, Any]:
    """A row of meta/episodes."""
    row = {
        "episode_index": number,
        "tasks": [line["instruction"]],
        "length": line["length"],
        "data/chunk_index": file // CHUNK_FILES,
        "data/file_index": file % CHUNK_FILES,
        "dataset_from_index": line["start"],
        "dataset_to_index": line["start"] + line["length"],
    }
    for key, told in _lists(statistics).items():
        row |= {f"stats/{key}/{name}": value for name, value in told.items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, "about": json.dumps(about(line))}


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
        "fps": FPS,
        "splits": {"train": f"0:{len(store)}"},
        "data_path": f"data/{PLACE}.parquet",
        "video_path": None,
        "features": features,
    }


def _lists(statistics: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, list]]:
    return {key: {name: value.tolist() for name, value in told.items()} for key, told in statistics.items()}
