"""LeRobotDatasets of v2.0 and v2.1 for tests, and edits of the metadata of any version; `foreign_files` writes v3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.foreign_files import FPS, INSTRUCTIONS, SIZE, TOP, WRIST, numbers, pixels, png, video

SIDE = "observation.images.side"
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
CHUNK = 2  # episodes to a folder


def lerobot_v2(folder: Path, lengths=(3, 4, 5), kind="video", version="v2.1", shape=(SIZE, SIZE, 3)) -> Path:
    """A dataset with the content of `foreign_files.lerobot`. Returns the folder.

    Args:
        folder: a new folder.
        lengths: steps of the episodes.
        kind: `image` or `video`.
        version: `v2.0`, which has stats.json, or `v2.1`, which has episodes_stats.jsonl.
        shape: of a picture, as info.json states it.
    """
    (folder / "meta").mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [7], "names": {"motors": [f"joint_{i}" for i in range(7)]}}
    names = ["channels", "height", "width"] if shape[0] == 3 else ["height", "width", "channel"]
    picture = {"dtype": kind, "shape": list(shape), "names": names}
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    features = {TOP: picture, WRIST: picture, "observation.state": vector, "action": vector}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    features |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), scalar)
    info = {
        "codebase_version": version,
        "robot_type": "panda",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": 2,
        "total_videos": 2 * len(lengths) if kind == "video" else 0,
        "total_chunks": -(-len(lengths) // CHUNK),
        "chunks_size": CHUNK,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": DATA,
        "video_path": VIDEO if kind == "video" else None,
        "features": features,
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    write_lines(folder / "meta/tasks.jsonl", [{"task_index": i, "task": text} for i, text in enumerate(INSTRUCTIONS)])
    rows = [
        {"episode_index": i, "tasks": [INSTRUCTIONS[i % 2]], "length": steps, "extra": None}
        for i, steps in enumerate(lengths)
    ]
    write_lines(folder / "meta/episodes.jsonl", rows)
    if version == "v2.0":
        (folder / "meta/stats.json").write_text("{}")
    else:
        write_lines(folder / "meta/episodes_stats.jsonl", [{"episode_index": row["episode_index"]} for row in rows])
    start = 0
    for number, steps in enumerate(lengths):
        _write_episode(folder, number, steps, start, kind)
        start += steps
    return folder


def _write_episode(folder: Path, number: int, steps: int, start: int, kind: str) -> None:
    place = {"episode_chunk": number // CHUNK, "episode_index": number}
    columns: dict[str, Any] = {
        "observation.state": list(numbers(steps, 100 + number)),
        "action": list(numbers(steps, number)),
        "timestamp": (np.arange(steps) / FPS).astype(np.float32),
        "frame_index": np.arange(steps),
        "episode_index": np.full(steps, number),
        "index": np.arange(start, start + steps),
        "task_index": np.full(steps, number % 2),
    }
    for key, seed in ((TOP, number), (WRIST, 1000 + number)):
        frames = pixels(steps, seed)
        if kind == "video":
            video(folder / VIDEO.format(**place, video_key=key), frames, "libx264rgb")
        else:
            columns[key] = [{"bytes": png(frame), "path": f"frame_{i:06d}.png"} for i, frame in enumerate(frames)]
    file = folder / DATA.format(**place)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def write_lines(file: Path, rows: list[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_info(folder: Path, **changes: Any) -> None:
    """Replaces fields of info.json."""
    file = folder / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def add_camera(folder: Path) -> None:
    """Declares the camera SIDE in info.json, as the others are."""
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    edit_info(folder, features=features | {SIDE: features[TOP]})


def edit_episodes(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes the rows of v3's meta/episodes in place."""
    edit_table(folder / "meta/episodes/chunk-000/file-000.parquet", change)


def edit_table(file: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes the rows of a parquet file in place."""
    rows = pq.read_table(file).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), file)
