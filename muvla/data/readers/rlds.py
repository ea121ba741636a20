"""RLDS datasets as tensorflow-datasets writes them, read record by record without TensorFlow.

Legend: T steps of an episode, h×w image.

    <root>/<name>/<version>/
      features.json                         what an episode holds: names, kinds, dtypes, shapes
      dataset_info.json                     splits, with the number of episodes of every shard
      <name>-train.tfrecord-00000-of-00004  a record per episode

An episode's record is one flat Example: a feature lies under its path, `steps/observation/image`, with the values of
all steps one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.source import ANY, Feature, Record, decoded, no_feature, unlike
from muvla.data.readers.tfrecord import Values, parse_example, records
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

SPLIT = "train"  # the only one of the published robot datasets
STEPS = "steps/"
SHARD = re.compile(rf".+-{SPLIT}\.tfrecord-(\d{{5}})-of-(\d{{5}})")


class RldsDirectory:
    """The folder of one version of a dataset; features of steps have paths that begin with `steps/`. Raises MuvlaError
    for one that is none, for a features.json in the layout of old releases of tensorflow-datasets, and for a missing
    shard."""

    format = "rlds"

    def __init__(self, path: Path):
        self.path = path
        for file in ("features.json", "dataset_info.json"):
            if not (path / file).exists():
                raise MuvlaError(
                    str(path),
                    got=f"no {file}",
                    expected="the folder of one version of a TFDS dataset",
                    remedy="name it with its version, for instance DIRECTORY/1.0.0",
                )
        self.info: dict[str, Any] = read_json(path / "dataset_info.json")
        features = read_json(path / "features.json")
        if "featuresDict" not in features:
            raise MuvlaError(
                str(path / "features.json"),
                got="another layout",
                expected="a `featuresDict`",
                remedy="open the dataset once with a newer tensorflow-datasets, and save its features",
            )
        self.features = {one.path: one for one in _leaves(features, "", ())}
        self.lengths = self._shard_lengths()
        self.shards = self._shards()

    def __len__(self) -> int:
        """Episodes."""
        return sum(self.lengths)

    @property
    def name(self) -> str:
        """Of the folder that holds the version."""
        return self.path.resolve().parent.name

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(shard.stat().st_size for shard in self.shards)

    @property
    def origin(self) -> str:
        """By names and sizes, as hashing takes as long as importing."""
        name, version = self.info.get("name"), self.info.get("version")
        return f"{name} {version} (RLDS, {len(self)} episodes, {self.bytes} bytes)"

    @cached_property
    def frames(self) -> int:
        """No file tells: the first record's share of the bytes stands for all."""
        path = next(one.path for one in self.features.values() if one.path.startswith(STEPS) and one.kind == "tensor")
        first = next(self.records([path]))
        return self.bytes * len(first.values[path]) // first.size

    def feature(self, path: str) -> Feature:
        """Raises MuvlaError for one that is not there or cannot be read."""
        found = self.features.get(path)
        if found is None:
            raise no_feature(self.path, path, self.features)
        if found.kind not in ("image", "text", "tensor"):
            raise unlike(f"{self.path}: feature {path}", f"a {found.kind}", "an image, a text or numbers")
        return found

    def records(self, paths: Iterable[str] | None = None, skip: int = 0) -> Iterator[Record]:
        """The episodes but the first `skip`, with these features, or all; one is in memory at a time.

        Raises MuvlaError for a cut or changed record, for one without a feature, for an episode of zero steps, and for
        a shard with another number of episodes than dataset_info.json tells.
        """
        wanted = [self.feature(path) for path in (self.features if paths is None else paths)]
        ends = list(accumulate(self.lengths))
        for shard, length, end in zip(self.shards, self.lengths, ends, strict=True):
            if end <= skip:
                continue
            number = first = max(0, skip - (end - length))
            for number, data in enumerate(records(shard, first), start=first):
                where = f"{shard}: record {number} (from 0)"
                yield Record(where, _decode(parse_example(data, where), wanted, where), size=len(data))
                number += 1
            if number != length:
                raise MuvlaError(
                    str(shard),
                    got=f"{number} records",
                    expected=f"{length}, as dataset_info.json tells",
                    remedy="copy or download the file again",
                )

    def _shard_lengths(self) -> list[int]:
        splits = {split["name"]: split for split in self.info.get("splits", [])}
        lengths = [int(length) for length in splits.get(SPLIT, {}).get("shardLengths", [])]
        if sum(lengths) == 0:
            raise MuvlaError(
                str(self.path / "dataset_info.json"),
                got=f"splits {', '.join(splits) or 'none'}",
                expected=f"episodes in a split {SPLIT!r}",
                remedy="check that the dataset was generated to its end",
            )
        return lengths

    def _shards(self) -> list[Path]:
        """Every shard of the split, by number."""
        total = len(self.lengths)
        found: dict[int, Path] = {}
        for file in sorted(self.path.iterdir()):
            if (match := SHARD.fullmatch(file.name)) and int(match[2]) == total:
                found[int(match[1])] = file
        missing = [i for i in range(total) if i not in found]
        if missing:
            raise MuvlaError(
                str(self.path),
                got=f"no *-{SPLIT}.tfrecord-{missing[0]:05d}-of-{total:05d}"
                + f", nor {len(missing) - 1} more" * (len(missing) > 1),
                expected=f"the {total} shards of dataset_info.json",
                remedy="download what is missing",
            )
        return [found[i] for i in range(total)]


def _leaves(node: dict[str, Any], path: str, outer: tuple[int, ...]) -> Iterator[Feature]:
    """The features below a node of features.json; `outer` are the lengths of the sequences that it lies in."""
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            yield from _leaves(child, f"{path}/{name}".lstrip("/"), outer)
    elif "sequence" in node:
        length = int(node["sequence"].get("length", ANY))
        inner = () if f"{path}/" == STEPS else (length,)
        yield from _leaves(node["sequence"]["feature"], path, outer + inner)
    else:
        kind = next((kind for kind in ("image", "text", "tensor") if kind in node), "")
        about = node.get(kind, {})
        shape = outer + tuple(map(int, about.get("shape", {}).get("dimensions", [])))
        dtype, encoding = about.get("dtype", "string"), about.get("encoding", "none")
        if kind and encoding == "none" and (kind == "image" or ANY not in shape):
            yield Feature(path, "text" if dtype == "string" else kind, dtype, shape)
        else:
            name = node.get("pythonClassName", "").rpartition(".")[2]
            yield Feature(path, f"{name or kind} of encoding {encoding} and shape {shape}")


def _decode(example: dict[str, Values], wanted: list[Feature], where: str) -> dict[str, np.ndarray]:
    values = {one.path: _values(example, one, f"{where}: {one.path}") for one in wanted}
    steps = {path: len(column) for path, column in values.items() if path.startswith(STEPS)}
    if len(set(steps.values())) > 1 or 0 in steps.values():
        raise MuvlaError(
            where,
            got=f"steps {steps}",
            expected="the same number of each, at least 1",
            remedy="report it to whoever made the dataset; such an episode cannot be used",
        )
    return values


def _values(example: dict[str, Values], feature: Feature, where: str) -> np.ndarray:
    found = example.get(feature.path)
    if found is None:
        raise _unlike(where, "no such feature", "one in every record")
    if feature.kind == "image":
        if not isinstance(found, list):
            raise _unlike(where, "numbers", "encoded images")
        values = [_image(one, feature, where) for one in found]
        if len({image.shape for image in values}) > 1:
            raise _unlike(where, "images of several sizes", "one size per episode")
        values = np.stack(values) if values else np.empty((0, 0, 0, 0), np.uint8)
    elif feature.kind == "text":
        if not isinstance(found, list):
            raise _unlike(where, "numbers", "texts")
        values = np.array([one.decode(errors="replace") for one in found], dtype=np.str_)
    else:
        each = prod(feature.shape)
        if len(found) and (isinstance(found, list) or len(found) % each):
            raise _unlike(where, f"{len(found)} values", f"{feature.dtype} of shape {feature.shape}")
        values = np.asarray(found).astype(feature.dtype).reshape(-1, *feature.shape)
    return values if feature.path.startswith(STEPS) else values[0] if len(values) else values


def _image(data: bytes, feature: Feature, where: str) -> np.ndarray:
    """(h, w, c) uint8."""
    pixels = decoded(data, where)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    fits = all(declared in (ANY, size) for declared, size in zip(feature.shape, pixels.shape, strict=True))
    if pixels.dtype != feature.dtype or not fits:
        raise _unlike(where, f"{pixels.dtype} of shape {pixels.shape}", f"{feature.dtype} of shape {feature.shape}")
    return pixels


def _unlike(where: str, got: str, expected: str) -> MuvlaError:
    return unlike(where, got, f"{expected}, as features.json tells")
