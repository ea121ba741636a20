"""Speed of reading frames from the store against decoding PNG files, and the memory use of reading.

python -m benchmarks.store            prints the tables and writes benchmarks/store.md; needs 1.5 GB of free disk

The frames are those of two 128-pixel cameras of the recall suite, repeated to a gigabyte. A single file holds the same
frames as PNG. PIL decodes each frame separately, like a loader of RLDS shards.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.memory import in_a_process, status
from benchmarks.pairs import compare, table
from muvla.config import DataConfig, DatasetConfig, TaskConfig
from muvla.data.collect import collect
from muvla.data.normalization import Statistics
from muvla.data.store import Episode, EpisodeStore, EpisodeWriter
from muvla.data.stream import SlotStream
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
FRAME = 2 * 128 * 128 * 3  # bytes
SLOTS, WINDOW, ROUNDS = 16, 8, 31
GIGABYTES = 1.0


class PngStream(SlotStream):
    """A stream of the same windows, whose images are decoded from PNG."""

    pngs: Pngs

    def _images(self, frame: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self.pngs[frame]


class Pngs:
    """The PNGs of every frame and camera of a store, in a memory-mapped file. The first `unique` frames repeat."""

    def __init__(self, file: Path, store: EpisodeStore, unique: int):
        encoded = [[_encoded(camera) for camera in store["images"][i]] for i in range(unique)]
        places, place = [], 0
        with file.open("wb") as handle:
            for i in range(store.frames):
                for png in encoded[i % unique]:
                    handle.write(png)
                    places.append((place, place + len(png)))
                    place += len(png)
        self.bytes, self.places = np.memmap(file, np.uint8, mode="r"), np.array(places).reshape(store.frames, -1, 2)

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        """Return the decoded images (…, V, h, w, 3) of some frames (…)."""
        decoded = [
            np.asarray(Image.open(io.BytesIO(self.bytes[start:end])))
            for start, end in self.places[frames].reshape(-1, 2)
        ]
        return np.stack(decoded).reshape(*frames.shape, -1, *decoded[0].shape)


def _encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def build_dataset(root: Path, gigabytes: float) -> tuple[EpisodeStore, int]:
    """Build a store of at least `gigabytes` GB. Return the store and the number of distinct frames."""
    spec = DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=24, image_size=128)
    small = collect(spec, root / "small")
    passes = max(1, int(np.ceil(gigabytes * 1e9 / (small.frames * FRAME))))
    spec = dataclasses.replace(spec, episodes=passes * len(small))
    writer = EpisodeWriter(root / f"{gigabytes} GB", spec)
    for i in range(spec.episodes):
        line = small.index[i % len(small)]
        rows = slice(line["start"], line["start"] + line["length"])
        columns = (small[name][rows] for name in ("images", "proprio", "executed_action", "recorded_action", "phase"))
        writer.append(Episode(*columns, {k: v for k, v in line.items() if k not in ("start", "length")}))
    writer.seal(spec.episodes)
    return EpisodeStore(writer.path), small.frames


def stream_of(store: EpisodeStore, stream_type: type[SlotStream] = SlotStream) -> SlotStream:
    def text(instructions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(instructions), 12, dtype=torch.int64), torch.full((len(instructions),), 12)

    return stream_type(store, DataConfig(store.spec), Statistics.from_store(store), text, slots=SLOTS, chunk=8, seed=0)


def speeds(root: Path, gigabytes: float = GIGABYTES, rounds: int = ROUNDS) -> list[list[str]]:
    """Return lines [name, baseline, store, ratio]; baselines are decoded PNG, and a copy of as many bytes in memory."""
    store, unique = build_dataset(root, gigabytes)
    decoding, reading = stream_of(store, PngStream), stream_of(store)
    decoding.pngs = Pngs(root / "frames.png", store, unique)
    rng, frames = np.random.default_rng(0), WINDOW * SLOTS

    def drawn(use: Callable[[np.ndarray], object]) -> Callable[[], object]:
        return lambda: use(rng.integers(0, store.frames, (WINDOW, SLOTS)))

    images = store["images"]
    memory = np.ones((8, frames * FRAME), np.uint8)  # larger than the processor's caches
    target, turn = np.empty(frames * FRAME, np.uint8), iter(range(10**9))
    windows = compare(lambda: decoding.window(WINDOW), lambda: reading.window(WINDOW), rounds)
    alone = compare(drawn(lambda frame: decoding.pngs[frame]), drawn(lambda frame: images[frame]), rounds)
    copied = compare(lambda: np.copyto(target, memory[next(turn) % 8]), drawn(lambda frame: images[frame]), rounds)
    unit = "frames/s"
    return [
        ["whole windows: decoded PNG against the store", *windows.line(frames, unit)],
        ["images of random frames: decoded PNG against the store", *alone.line(frames, unit)],
        ["images of random frames: a plain copy in memory against the store", *copied.line(frames, unit)],
    ]


def growth(root: Path, gigabytes: float, windows: int = 300) -> float:
    """Return the growth of a process's anonymous memory in MB.

    The process opens store, statistics and stream, and then reads the windows.
    """
    path = build_dataset(root, gigabytes)[0].path
    return in_a_process(_growth, path, windows)


def _growth(path: Path, windows: int) -> float:
    torch.set_num_threads(1)
    before = status("RssAnon")
    stream, most = stream_of(EpisodeStore(path)), 0
    for _ in range(windows):
        window = stream.window(WINDOW)
        most = max(most, status("RssAnon"))
        del window
    return (most - before) / 1024


def main(gigabytes: float = GIGABYTES, rounds: int = ROUNDS, here: Path = HERE) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = speeds(Path(folder) / "speed", gigabytes, rounds)
        sizes = (gigabytes / 4, gigabytes)
        grown = [[f"{size:.3g} GB", f"{growth(Path(folder) / f'growth {size}', size):.0f} MB"] for size in sizes]
    lines = [
        "# Reading frames",
        "",
        f"Generated by `python -m benchmarks.store` on {datetime.date.today()}: {hardware_line()}, 1 thread; code "
        f"version {CODE_VERSION}. Frames have 2 × 128 × 128 × 3 bytes, in windows of {WINDOW} ticks of {SLOTS} slots; "
        f"the page cache holds the {gigabytes:.3g} GB. The numbers are medians of {rounds} interleaved pairs with the "
        "95 % interval of the ratio's median.",
        "",
        *table(["", "baseline", "store", "ratio"], rows),
        "Growth of a process's anonymous memory (RssAnon) over 300 windows, including the images of a window:",
        "",
        *table(["dataset", "growth"], grown),
    ]
    text = "\n".join(lines)
    write_atomically(here / "store.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
