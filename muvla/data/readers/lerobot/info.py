"""`meta/info.json` of a LeRobotDataset: version, features, frame rate, and the patterns of paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from muvla.data.readers.source import Feature, no_feature
from muvla.errors import MuvlaError
from muvla.utils.foreign import decode, read_object
from muvla.utils.names import expand, inside

FILE = "meta/info.json"
OLD, NEW = "v2", "v3"  # a file per episode; many episodes to a file
NUMBERS = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
PICTURES = ("image", "video")
LONGEST = 10**7  # steps of an episode: at 30 steps per second almost four days
VIDEO_PATH = {
    OLD: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    NEW: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
Count = Annotated[int, msgspec.Meta(ge=0)]


class _File(msgspec.Struct):
    """The fields that a reader needs."""

    codebase_version: str
    features: dict[str, Any]
    total_episodes: Count
    total_frames: Count
    fps: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    data_path: str
    video_path: str | None = None
    chunks_size: Annotated[int, msgspec.Meta(ge=1)] = 1000


class _Feature(msgspec.Struct):
    dtype: str
    shape: list[Count]
    names: Any = None
    info: Any = None


class Info:
    """The checked description of a dataset. Opening raises MuvlaError for another version, missing fields, and path
    patterns of another version. Features are checked when they are asked for."""

    def __init__(self, root: Path):
        self.root, self.file = root, root / FILE
        data = read_object(self.file)
        self.version = self._major(data.get("codebase_version"))
        self._data = decode(data, _File, str(self.file))
        fps = self._data.fps
        self.fps: float = int(fps) if fps == int(fps) else fps
        self.episodes, self.frames = self._data.total_episodes, self._data.total_frames
        self.features = self._data.features
        self._require_patterns()

    def _major(self, version: Any) -> str:
        for major in (OLD, NEW):
            if isinstance(version, str) and version.startswith(f"{major}."):
                return major
        raise MuvlaError(
            f"{self.file}: codebase_version",
            got=version,
            expected="v2.0, v2.1 or v3.x",
            remedy="convert the dataset to v3.0 with LeRobot's conversion scripts (lerobot.datasets.v30)",
        )

    def _require_patterns(self) -> None:
        """Fills the patterns once, so that a wrong pattern is reported before any episode is read."""
        place = dict.fromkeys(self._names, 0)
        other = {NEW: "{episode_", OLD: "{file_index"}[self.version]
        for name, pattern in (("data_path", self._data.data_path), ("video_path", self._data.video_path)):
            if other in (pattern or ""):
                raise self._pattern_of_another_version(name, pattern)
            if pattern is not None:
                self._path(name, pattern, place | ({"video_key": "key"} if name == "video_path" else {}))

    def _pattern_of_another_version(self, name: str, pattern: str) -> MuvlaError:
        files = [file for file in ("meta/episodes.jsonl", "meta/episodes") if (self.root / file).exists()]
        written = " and ".join(files) or "no file of episodes"
        return MuvlaError(
            f"{self.file}: {name}",
            got=pattern,
            expected=" and ".join(f"{{{field}}}" for field in self._names[:2])
            + f", as codebase_version is {self.version}",
            remedy=f"the folder has {written}; meta/episodes.jsonl is v2.1's and meta/episodes v3's: set "
            "codebase_version to the version of the files, or convert the dataset again with LeRobot's script",
        )

    @property
    def _names(self) -> tuple[str, ...]:
        if self.version == NEW:
            return ("chunk_index", "file_index")
        return ("episode_chunk", "episode_index", "total_episodes")

    def _path(self, name: str, pattern: str, place: dict[str, str | int]) -> Path:
        where = f"{self.file}: {name}"
        return inside(self.root, expand(pattern, place, where), where)

    def data_file(self, **place: int) -> Path:
        """Returns the parquet file of a place; v3: chunk_index and file_index; v2: the same as `episode_place`."""
        return self._path("data_path", self._data.data_path, dict(place))

    def video_file(self, feature: str, **place: int) -> Path:
        """Returns the video of a feature and a place. Raises MuvlaError without a pattern for videos."""
        if self._data.video_path is None:
            raise MuvlaError(
                f"{self.file}: video_path",
                got=None,
                expected=f"a pattern, because {feature} is a video",
                remedy=f"write the pattern; LeRobot's is {VIDEO_PATH[self.version]}",
            )
        return self._path("video_path", self._data.video_path, {**place, "video_key": feature})

    def episode_place(self, number: int) -> dict[str, int]:
        """Returns the place of an episode in v2, where each episode has files of its own."""
        return {
            "episode_chunk": number // self._data.chunks_size,
            "episode_index": number,
            "total_episodes": self.episodes,
        }

    def is_video(self, path: str) -> bool:
        """True if the feature's pictures lie in videos."""
        return self._declared(path).dtype == "video"

    def feature(self, path: str) -> Feature:
        """Returns a feature; `content` describes what cannot be read. Raises MuvlaError if there is no such feature."""
        declared = self._declared(path)
        dtype, shape = declared.dtype, tuple(declared.shape)
        if dtype in PICTURES:
            return self._picture(path, declared)
        if dtype == "string":
            return Feature(path, "text", dtype)
        content = "tensor" if dtype in NUMBERS else f"the dtype {dtype!r}"
        return Feature(path, content, dtype, () if shape == (1,) else shape, _names(declared))

    def _declared(self, path: str) -> _Feature:
        if path not in self.features:
            raise no_feature(self.root, path, self.features)
        return decode(self.features[path], _Feature, f"{self.file}: features.{path}")

    @staticmethod
    def _picture(path: str, declared: _Feature) -> Feature:
        shape, names = tuple(declared.shape), declared.names
        about = declared.info if isinstance(declared.info, dict) else {}
        if about.get("video.is_depth_map") or about.get("is_depth_map"):
            return Feature(path, "a depth map")
        if len(shape) != 3:
            return Feature(path, f"pictures of shape {shape}")
        named_first = isinstance(names, list) and bool(names) and str(names[0]).startswith("c")
        ends = [size == 3 for size in (shape[0], shape[-1])]
        channels_first = ends[0] if ends[0] != ends[1] else named_first  # some sets write names in another order
        return Feature(path, "image", "uint8", (*shape[1:], shape[0]) if channels_first else shape)


def _names(declared: _Feature) -> tuple[str, ...]:
    """Returns the names of a feature's numbers; () where the file has no name per number."""
    names = declared.names
    if isinstance(names, dict) and len(names) == 1:  # LeRobot's robots write {"motors": [names]}
        (names,) = names.values()
    fits = isinstance(names, list) and [len(names)] == declared.shape and all(isinstance(name, str) for name in names)
    return tuple(names) if fits else ()
