"""RLDS datasets as tensorflow-datasets writes them, read record by record without TensorFlow.

Legend: T steps of an episode, h×w image.

    <root>/<name>/<version>/
      features.json                         the features of an episode: names, types, dtypes, shapes
      dataset_info.json                     splits, with the number of episodes of every shard
      <name>-train.tfrecord-00000-of-00004  a record per episode

An episode's record is one flat Example. A feature lies under its path, `steps/observation/image`, with the values of
all steps in a row.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path

import msgspec
import numpy as np

from muvla.data.readers.source import ANY, Feature, Record, decode_image, mismatch, no_feature
from muvla.data.readers.tfrecord import Values, parse_example, read_records
from muvla.envs.conventions import NOTHING_STATED
from muvla.errors import MuvlaError
from muvla.utils.foreign import read_model

# Data types whose values an Example holds without loss.
DTYPES = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")
SPLIT = "train"  # the only split of the published robot datasets
STEPS = "steps/"
SHARD = re.compile(rf".+-{SPLIT}\.tfrecord-(\d{{5}})-of-(\d{{5}})")


# The checked fields of features.json and dataset_info.json, in the words of protobuf's JSON.


class _Split(msgspec.Struct):
    name: str
    shardLengths: list[int | str] = []


class _Info(msgspec.Struct):
    name: str | None = None
    version: str | None = None
    splits: list[_Split] = []


class _Shape(msgspec.Struct):
    dimensions: list[int | str] = []


class _About(msgspec.Struct):
    dtype: str = "string"
    encoding: str = "none"
    shape: _Shape = msgspec.field(default_factory=_Shape)


class _Group(msgspec.Struct):
    features: dict[str, _Node]


class _Sequence(msgspec.Struct):
    feature: _Node
    length: int | str = ANY


class _Node(msgspec.Struct):
    featuresDict: _Group | None = None
    sequence: _Sequence | None = None
    image: _About | None = None
    text: _About | None = None
    tensor: _About | None = None
    pythonClassName: str = ""


class RldsDirectory:
    """The folder of one version of a dataset; features of steps have paths that begin with `steps/`.

    Opening raises MuvlaError for another folder, a features.json in the layout of old tensorflow-datasets, and a
    missing shard.
    """

    format = "rlds"
    conventions = NOTHING_STATED  # the format states none

    def __init__(self, path: Path):
        self.path = path
        for file in ("features.json", "dataset_info.json"):
            if not (path / file).exists():
                raise MuvlaError(
                    str(path),
                    got=f"no {file}",
                    expected="the folder of one version of a TFDS dataset",
                    remedy="pass the folder of the version, for example DIRECTORY/1.0.0",
                )
        self.info = read_model(path / "dataset_info.json", _Info)
        features = read_model(path / "features.json", _Node)
        if features.featuresDict is None:
            raise MuvlaError(
                str(path / "features.json"),
                got="a layout without `featuresDict`",
                expected="a `featuresDict`",
                remedy="open the dataset once with a newer tensorflow-datasets, and save its features",
            )
        self.features = {feature.path: feature for feature in _leaves(features, "", (), str(path / "features.json"))}
        self.lengths = self._shard_lengths()
        self.shards = self._shards()

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return sum(self.lengths)

    @property
    def name(self) -> str:
        """Name of the folder that holds the version."""
        return self.path.resolve().parent.name

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.stat().st_size for shard in self.shards)

    @property
    def origin(self) -> str:
        """Names and sizes, because hashing takes as long as importing."""
        return f"{self.info.name} {self.info.version} (RLDS, {len(self)} episodes, {self.bytes} bytes)"

    @cached_property
    def frames(self) -> int:
        """Estimated from the first record's share of the bytes: no file holds the number."""
        tensors = (f.path for f in self.features.values() if f.path.startswith(STEPS) and f.content == "tensor")
        path = next(tensors, None)
        if path is None:
            raise mismatch(f"{self.path / 'features.json'}", "no feature of steps with numbers", "proprio or actions")
        first = next(self.records([path]))
        return self.bytes * len(first.values[path]) // first.size

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""
        feature = self.features.get(path)
        if feature is None:
            raise no_feature(self.path, path, self.features)
        if feature.content not in ("image", "text", "tensor"):
            raise mismatch(f"{self.path}: feature {path}", f"a {feature.content}", "an image, a text or numbers")
        return feature

    def records(self, paths: Iterable[str] | None = None, numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields the episodes of these numbers, or all, with these features or all; holds one episode in memory.

        Raises MuvlaError for a cut or changed record, a missing feature, an episode without steps, and a shard whose
        number of episodes differs from dataset_info.json.
        """
        features = [self.feature(path) for path in (self.features if paths is None else paths)]
        wanted = range(len(self)) if numbers is None else numbers
        for shard, length, end in zip(self.shards, self.lengths, accumulate(self.lengths), strict=True):
            start = end - length
            inside = set(wanted[bisect_left(wanted, start) : bisect_left(wanted, end)])
            if not inside:
                continue
            count = 0
            for count, data in enumerate(read_records(shard, {number - start for number in inside}), start=1):
                if data is not None and count <= length:
                    where = f"{shard}: record {count - 1} (from 0)"
                    yield Record(where, _decode(parse_example(data, where), features, where), size=len(data))
            if count != length:
                raise MuvlaError(
                    str(shard),
                    got=f"{count} records",
                    expected=f"{length} records, by dataset_info.json",
                    remedy="compare the shard's size with the source's, and copy the shards that differ",
                )

    def _shard_lengths(self) -> list[int]:
        splits = {split.name: split.shardLengths for split in self.info.splits}
        where = f"{self.path / 'dataset_info.json'}: shardLengths"
        lengths = [_get_number(length, where, least=0) for length in splits.get(SPLIT, [])]
        if sum(lengths) == 0:
            raise MuvlaError(
                str(self.path / "dataset_info.json"),
                got=f"splits {', '.join(splits) or 'none'}",
                expected=f"episodes in a split {SPLIT!r}",
                remedy="generate the dataset to its end with `tfds build`; no other split is read",
            )
        return lengths

    def _shards(self) -> list[Path]:
        """Returns every shard of the split, by number."""
        total = len(self.lengths)
        shards: dict[int, Path] = {}
        for file in sorted(self.path.iterdir()):
            if (match := SHARD.fullmatch(file.name)) and int(match[2]) == total:
                shards[int(match[1])] = file
        missing = [i for i in range(total) if i not in shards]
        if missing:
            more = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
            raise MuvlaError(
                str(self.path),
                got=f"no *-{SPLIT}.tfrecord-{missing[0]:05d}-of-{total:05d}{more}",
                expected=f"the {total} shards of dataset_info.json",
                remedy="download the missing shards",
            )
        return [shards[i] for i in range(total)]


def _get_number(number: int | str, where: str, least: int = ANY) -> int:
    """Returns a number, which protobuf's JSON writes as text. Raises MuvlaError for other text and below `least`."""
    if re.fullmatch(r"-?\d{1,12}", str(number), re.ASCII) is None or int(number) < least:
        raise mismatch(where, repr(number), f"a whole number of at least {least}")
    return int(number)


def _leaves(node: _Node, path: str, outer: tuple[int, ...], file: str) -> Iterator[Feature]:
    """Yields the features below a node of features.json.

    Args:
        node: the node.
        path: path of the node's feature.
        outer: lengths of the enclosing sequences.
        file: the file, for errors.
    """
    where = f"{file}: {path}"
    if node.featuresDict is not None:
        for name, child in node.featuresDict.features.items():
            yield from _leaves(child, f"{path}/{name}".lstrip("/"), outer, file)
    elif node.sequence is not None:
        length = _get_number(node.sequence.length, where)
        inner = () if f"{path}/" == STEPS else (length,)
        yield from _leaves(node.sequence.feature, path, outer + inner, file)
    else:
        content = next((name for name in ("image", "text", "tensor") if getattr(node, name) is not None), "")
        about = getattr(node, content) if content else _About()
        shape = outer + tuple(_get_number(size, where) for size in about.shape.dimensions)
        dtype, encoding = about.dtype, about.encoding
        readable = content != "tensor" or dtype == "string" or (dtype in DTYPES and ANY not in shape)
        if content and encoding == "none" and readable:
            yield Feature(path, "text" if dtype == "string" else content, dtype, shape)
        else:
            name = node.pythonClassName.rpartition(".")[2]
            yield Feature(path, f"{name or content} of encoding {encoding} and shape {shape}")


def _decode(example: dict[str, Values], features: list[Feature], where: str) -> dict[str, np.ndarray]:
    values = {feature.path: _values(example, feature, f"{where}: {feature.path}") for feature in features}
    columns = [feature.path for feature in features if feature.path.startswith(STEPS) and feature.content != "text"]
    steps = {path: len(values[path]) for path in columns}
    if len(set(steps.values())) > 1 or 0 in steps.values():
        raise MuvlaError(
            where,
            got=f"steps {steps}",
            expected="one number of steps for all features, at least 1",
            remedy="report the fault to the dataset's authors; this episode cannot be imported",
        )
    return values


def _values(example: dict[str, Values], feature: Feature, where: str) -> np.ndarray:
    stored = example.get(feature.path)
    if stored is None and feature.content == "text":
        return np.array([], dtype=np.str_)  # an episode without a text
    if stored is None:
        raise _mismatch(where, "no such feature", "this feature in every record")
    if feature.content == "image":
        if not isinstance(stored, list):
            raise _mismatch(where, "numbers", "encoded images")
        values = [_image(data, feature, where) for data in stored]
        if len({image.shape for image in values}) > 1:
            raise _mismatch(where, "images of several sizes", "one size per episode")
        values = np.stack(values) if values else np.empty((0, 0, 0, 0), np.uint8)
    elif feature.content == "text":
        if not isinstance(stored, list):
            raise _mismatch(where, "numbers", "texts")
        values = np.array([text.decode(errors="replace") for text in stored], dtype=np.str_)
    else:
        values = _numbers(stored, feature, where)
    return values if feature.path.startswith(STEPS) else values[0] if len(values) else values


def _numbers(stored: Values, feature: Feature, where: str) -> np.ndarray:
    """Returns (n, …) of the declared dtype and shape."""
    dtype, each = np.dtype(feature.dtype), prod(feature.shape)
    expected = f"{feature.dtype} of shape {feature.shape}"
    if not len(stored):
        return np.empty((0, *feature.shape), dtype)
    if isinstance(stored, list) or each == 0 or len(stored) % each:
        raise _mismatch(where, f"{len(stored)} values", expected)
    if (stored.dtype.kind == "f") != (dtype.kind == "f"):
        raise _mismatch(where, "floats" if stored.dtype.kind == "f" else "integers", expected)
    values = stored.view(np.uint64) if dtype == np.uint64 else stored
    converted = values.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted, values):
        raise _mismatch(where, "integers beyond the dtype", expected)
    return converted.reshape(-1, *feature.shape)


def _image(data: bytes, feature: Feature, where: str) -> np.ndarray:
    """Returns (h, w, c) uint8."""
    pixels = decode_image(data, where)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    fits = all(declared in (ANY, size) for declared, size in zip(feature.shape, pixels.shape, strict=True))
    if pixels.dtype != feature.dtype or not fits:
        raise _mismatch(where, f"{pixels.dtype} of shape {pixels.shape}", f"{feature.dtype} of shape {feature.shape}")
    return pixels


def _mismatch(where: str, got: str, expected: str) -> MuvlaError:
    return mismatch(where, got, f"{expected}, by features.json")
