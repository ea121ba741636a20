"""RLDS as tensorflow-datasets writes it, in MIKASA's layout (μVLA spec 4.4), without TensorFlow.

`muvla.data.readers.rlds` reads it back and describes the files. Recorded columns that the published layout lacks are
added as `steps/executed_action` and `steps/phase`; derived ones are not. `episode_metadata/about` is a JSON object with
the other fields of the store's index: target, seed, lengths of cue and delay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.store import EpisodeStore
from muvla.data.writers.columns import encode_png, get_about, read_rows
from muvla.data.writers.tfrecord import encode_example, frame_record
from muvla.errors import MuvlaError
from muvla.utils.io import write_json

VERSION = "1.0.0"
NAME = re.compile(r"[a-z][a-z0-9_]*")  # names that tensorflow-datasets accepts
CAMERAS = ("image", "wrist_image")
SHARD_BYTES = 2**27
FEATURES = "tensorflow_datasets.core.features."


def write_rlds(store: EpisodeStore, folder: Path, name: str, progress: Callable[[int, int], None]) -> str:
    """Writes the dataset and returns the version's folder, below `folder`.

    Args:
        store: the dataset.
        folder: an empty folder.
        name: name of the dataset.
        progress: called with (episodes written, episodes).

    Raises:
        MuvlaError: tensorflow-datasets does not accept the name, or the dataset does not have the layout's two
            cameras.
    """
    if not NAME.fullmatch(name):
        raise MuvlaError(
            "DIRECTORY",
            got=name,
            expected="a folder name of a-z, 0-9 and _ with a letter first, because it names the dataset",
            remedy="choose another folder name",
        )
    if store["images"].shape[1] != len(CAMERAS):
        raise MuvlaError(
            str(store.path),
            got=f"{store['images'].shape[1]} cameras",
            expected=f"the layout's {len(CAMERAS)} cameras",
            remedy="write the dataset with --format lerobot",
        )
    place = folder / VERSION
    place.mkdir()
    lengths, size = _shards(store, place, progress)
    for number in range(len(lengths)):
        (place / f"{number}").rename(place / f"{name}-train.tfrecord-{number:05d}-of-{len(lengths):05d}")
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "train",
        "numBytes": str(size),
        "shardLengths": [str(length) for length in lengths],
    }
    description = f"{len(store)} episodes of {store.spec.task.name}, content {store.sha256}"
    info = {"description": description, "fileFormat": "tfrecord", "name": name, "splits": [split], "version": VERSION}
    write_json(place / "dataset_info.json", info)
    write_json(place / "features.json", _features(store))
    return VERSION


def _shards(store: EpisodeStore, place: Path, progress: Callable[[int, int], None]) -> tuple[list[int], int]:
    """Writes the shards, named by their numbers; returns the episodes of each shard and the bytes of all examples."""
    lengths: list[int] = []
    size, handle = 0, None
    try:
        for number in range(len(store)):
            if handle is None or handle.tell() >= SHARD_BYTES:
                if handle is not None:
                    handle.close()
                handle = (place / f"{len(lengths)}").open("wb")
                lengths.append(0)
            data = encode_example(_episode(store, number))
            handle.write(frame_record(data))
            size, lengths[-1] = size + len(data), lengths[-1] + 1
            progress(number + 1, len(store))
    finally:
        if handle is not None:
            handle.close()
    return lengths, size


def _episode(store: EpisodeStore, number: int) -> dict[str, Any]:
    """Returns an episode's features by path; features of steps hold the values of all steps in a row."""
    columns, line = read_rows(store, number), store.index[number]
    length = line["length"]
    last = np.arange(length) == length - 1
    steps: dict[str, Any] = {
        f"observation/{name}": [encode_png(image) for image in columns["images"][:, camera]]
        for camera, name in enumerate(CAMERAS)
    }
    steps |= {"observation/proprio": columns["proprio"], "action": columns["recorded_action"]}
    steps |= {"is_first": np.arange(length) == 0, "is_last": last, "is_terminal": last}
    # Collection ends an episode at its first success, and imported episodes are demonstrations.
    steps |= {"reward": last.astype(np.float32), "discount": np.ones(length, np.float32)}
    steps["language_instruction"] = [line["instruction"].encode()] * length
    if store.knows_phases:
        steps |= {"executed_action": columns["executed_action"], "phase": columns["phase"].astype(np.int64)}
    return {f"steps/{name}": value for name, value in steps.items()} | {
        "episode_metadata/about": [json.dumps(get_about(line)).encode()]
    }


def _features(store: EpisodeStore) -> dict[str, Any]:
    """Returns the content of features.json."""
    h, w, channels = store["images"].shape[2:]
    action = _tensor("float32", store["recorded_action"].shape[1])
    image = {"image": {"dtype": "uint8", "encodingFormat": "png", "shape": _shape(h, w, channels)}}
    observation = {name: image | _class("image_feature.Image") for name in CAMERAS}
    observation["proprio"] = _tensor("float32", store["proprio"].shape[1])
    steps = {"observation": _group(observation), "action": action, "language_instruction": _text()}
    steps |= {name: _scalar("bool") for name in ("is_first", "is_last", "is_terminal")}
    steps |= {name: _scalar("float32") for name in ("reward", "discount")}
    if store.knows_phases:
        steps |= {"executed_action": action, "phase": _scalar("int64")}
    sequence = {"sequence": {"feature": _group(steps), "length": "-1"}} | _class("dataset_feature.Dataset")
    return _group({"steps": sequence, "episode_metadata": _group({"about": _text()})})


def _class(name: str) -> dict[str, str]:
    return {"pythonClassName": FEATURES + name}


def _group(features: dict[str, Any]) -> dict[str, Any]:
    return {"featuresDict": {"features": features}} | _class("features_dict.FeaturesDict")


def _shape(*sizes: int) -> dict[str, list[str]]:
    return {"dimensions": [str(size) for size in sizes]} if sizes else {}


def _tensor(dtype: str, *shape: int) -> dict[str, Any]:
    tensor = {"dtype": dtype, "encoding": "none", "shape": _shape(*shape)}
    return {"tensor": tensor} | _class("tensor_feature.Tensor")


def _scalar(dtype: str) -> dict[str, Any]:
    return _tensor(dtype) | _class("scalar.Scalar")


def _text() -> dict[str, Any]:
    return {"text": {}} | _class("text_feature.Text")
