"""Demonstrations in others' formats for tests, written by the formats' own libraries: pyarrow and PyAV (LeRobotDataset
v3), numpy (MIKASA-Robo), h5py (ManiSkill)."""

from __future__ import annotations

import io
import json
from fractions import Fraction

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = 32  # pixels, as the tiny model's
INSTRUCTIONS = ("Touch the marked disc.", "Touch the disc of the same color.")
FPS = 10
TOP, WRIST = "observation.images.top", "observation.images.wrist"


def pixels(steps: int, seed: int, size: int = SIZE) -> np.ndarray:
    """(T, h, w, 3) uint8: of every frame another flat colour, which a lossy codec keeps to a few levels."""
    colours = np.random.default_rng(seed).integers(0, 256, (steps, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (steps, size, size, 3)).copy()


def numbers(steps: int, seed: int, size: int = 7) -> np.ndarray:
    """(T, size) float32."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps, size)).astype(np.float32)


def lerobot(folder, lengths=(3, 4, 5), kind="video", per_file=2, codec="libx264rgb", **changes):
    """A LeRobotDataset v3 of these episodes, `per_file` to a file; `changes` replace columns of the data, by name, as
    functions of the table's rows (a dict of lists). Returns the folder."""
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [7], "names": None}
    picture = {"dtype": kind, "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]}
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": "v3.0", "robot_type": "panda", "total_episodes": len(lengths),
        "total_frames": sum(lengths), "total_tasks": 2, "chunks_size": 1000, "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {TOP: picture, WRIST: picture, "observation.state": vector, "action": vector,
                     "timestamp": {"dtype": "float32", "shape": [1], "names": None}}
        | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), scalar),
    }  # fmt: skip
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    index = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [], "pandas_version": "2.2.0"}
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": list(INSTRUCTIONS)})
    pq.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(index)}), folder / "meta" / "tasks.parquet")
    rows, start = [], 0
    for first in range(0, len(lengths), per_file):
        file, seconds = first // per_file, 0.0
        place = f"chunk-000/file-{file:03d}"
        data: dict[str, list] = {}
        for number in range(first, min(first + per_file, len(lengths))):
            steps = lengths[number]
            columns = {
                "observation.state": list(numbers(steps, 100 + number)), "action": list(numbers(steps, number)),
                "timestamp": list((np.arange(steps) / FPS).astype(np.float32)), "frame_index": range(steps),
                "episode_index": [number] * steps, "index": range(start, start + steps),
                "task_index": [number % 2] * steps,
            }  # fmt: skip
            if kind == "image":
                for key, seed in ((TOP, number), (WRIST, 1000 + number)):
                    columns[key] = [
                        {"bytes": png(one), "path": f"{i}.png"} for i, one in enumerate(pixels(steps, seed))
                    ]
            for name, column in columns.items():
                data.setdefault(name, []).extend(column)
            row = {"episode_index": number, "tasks": [INSTRUCTIONS[number % 2]], "length": steps,
                   "data/chunk_index": 0, "data/file_index": file, "dataset_from_index": start,
                   "dataset_to_index": start + steps, "stats/action/count": [steps]}  # fmt: skip
            if kind == "video":
                for key in (TOP, WRIST):
                    row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": file,
                            f"videos/{key}/from_timestamp": seconds,
                            f"videos/{key}/to_timestamp": seconds + steps / FPS}  # fmt: skip
            rows.append(row)
            start, seconds = start + steps, seconds + steps / FPS
        if kind == "video":
            for key, seed in ((TOP, 0), (WRIST, 1000)):
                episodes = range(first, min(first + per_file, len(lengths)))
                frames = np.concatenate([pixels(lengths[number], seed + number) for number in episodes])
                video(folder / "videos" / key / f"{place}.mp4", frames, codec)
        for name, change in changes.items():
            data[name] = change(data)
        (folder / "data" / "chunk-000").mkdir(parents=True, exist_ok=True)
        types = {"observation.state": pa.list_(pa.float32()), "action": pa.list_(pa.float32(), 7),
                 "timestamp": pa.float32()}  # fmt: skip
        table = pa.table({name: pa.array(column, types.get(name)) for name, column in data.items()})
        pq.write_table(table, folder / "data" / f"{place}.parquet")
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    return folder


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def video(path, frames: np.ndarray, codec: str) -> None:
    """`libx264rgb` at quantiser 0 changes no pixel, others do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = codec == "libx264rgb"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"qp": "0"} if lossless else {"crf": "20"})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        stream.codec_context.gop_size = 2  # as LeRobot's videos have
        for i, one in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(one, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def mikasa(folder, lengths=(3, 4, 5), metadata=True, **changes):
    """A folder of unbatched episodes; `changes` replace arrays of the last one, None takes one out."""
    folder.mkdir(parents=True)
    for number, steps in enumerate(lengths):
        rgb = np.concatenate([pixels(steps, number), pixels(steps, 1000 + number)], axis=-1)
        episode = {
            "rgb": rgb, "proprio": numbers(steps, 100 + number), "action": numbers(steps, number),
            "reward": np.zeros(steps, np.float32), "success": (np.arange(steps) == steps - 1).astype(np.int32),
            "done": np.zeros(steps, np.int32), "language_instruction": np.array(INSTRUCTIONS[0], dtype=np.str_),
            "success_once": np.array(True), "episode_length": np.array(steps, np.int32),
            "episode_seed": np.array(40 + number, np.int64),
        }  # fmt: skip
        episode |= changes if number == len(lengths) - 1 else {}
        np.savez(folder / f"train_data_{number}.npz", **{k: v for k, v in episode.items() if v is not None})
    if metadata:
        told = {"env_id": "RememberColor3-VLA-v0", "num_episodes": len(lengths), "episode_lengths": list(lengths)}
        (folder / "metadata.json").write_text(json.dumps(told))
    return folder


def maniskill(folder, lengths=(3, 4, 5), cameras=("base_camera", "hand_camera"), failed=(), **changes):
    """`trajectory.h5` and its json; `changes` replace the last episode's `actions`. Returns the h5 file."""
    folder.mkdir(parents=True, exist_ok=True)
    episodes = []
    with h5py.File(folder / "trajectory.h5", "w") as file:
        for number, steps in enumerate(lengths):
            group = file.create_group(f"traj_{number}", track_order=True)
            obs = group.create_group("obs", track_order=True)
            obs.create_dataset("agent/qpos", data=numbers(steps + 1, 100 + number, 9))
            obs.create_dataset("extra/tcp_pose", data=numbers(steps + 1, 200 + number))
            for i, camera in enumerate(cameras):
                rgb = pixels(steps + 1, number + 1000 * i)
                obs.create_dataset(f"sensor_data/{camera}/rgb", data=rgb, compression="gzip", compression_opts=5)
            last = number == len(lengths) - 1
            group.create_dataset("actions", data=changes.get("actions") if last and changes else numbers(steps, number))
            group.create_dataset("terminated", data=np.zeros(steps, bool))
            group.create_dataset("truncated", data=np.zeros(steps, bool))
            episodes.append({"episode_id": number, "episode_seed": 40 + number, "control_mode": "pd_ee_delta_pose",
                             "elapsed_steps": steps, "success": number not in failed})  # fmt: skip
    told = {"env_info": {"env_id": "PickCube-v1", "env_kwargs": {}}, "commit_info": None, "episodes": episodes}
    (folder / "trajectory.json").write_text(json.dumps(told))
    return folder / "trajectory.h5"
