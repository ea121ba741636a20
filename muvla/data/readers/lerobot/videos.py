"""Frames of a video by their time; a file is decoded once from front to back, however many episodes it holds.

Legend: T frames, h×w image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muvla.data.readers.lerobot.episodes import VideoPlace
from muvla.data.readers.source import MOST_PIXELS
from muvla.errors import MuvlaError
from muvla.utils.files import require_file
from muvla.utils.packages import import_package

# Containers and protocols that ffmpeg may use: others, such as playlists, open further files by name.
SAFE = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi", "protocol_whitelist": "none"}


class VideoFile:
    """An open video. Opening raises MuvlaError for a missing file, a Git LFS pointer, and no whole video."""

    def __init__(self, path: Path):
        self.path = path
        self._av = import_package("av", "to decode LeRobot's videos")
        require_file(path)
        self._handle = path.open("rb")  # ffmpeg would take some names for an address
        try:
            self._container = self._av.open(self._handle, options=dict(SAFE), metadata_errors="ignore")
            self._stream = self._container.streams.video[0]
            problem = self._prepare()
        except (*self._errors, IndexError) as error:
            self._handle.close()
            raise self._damage(str(error)) from None
        if problem is not None:
            self.close()
            raise self._damage(problem)
        self._decoding = self._container.decode(self._stream)
        self._frame = None  # the last decoded frame

    def _prepare(self) -> str | None:
        """Limits the decoder; returns the reason why the stream cannot be decoded, or None."""
        codec, self._base = self._stream.codec_context, self._stream.time_base
        if codec is None:
            return "no decoder for its codec"
        if self._base is None or self._base <= 0:
            return "no time base"
        if self._stream.width * self._stream.height > MOST_PIXELS:
            return f"frames of {self._stream.width}×{self._stream.height} pixels"
        codec.options = {"max_pixels": str(MOST_PIXELS)}
        self._stream.thread_type = "AUTO"
        return None

    def close(self) -> None:
        self._container.close()
        self._handle.close()

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """The exceptions of PyAV for damaged files."""
        return (self._av.FFmpegError, ValueError, OverflowError, MemoryError, OSError)

    def frames(self, times: np.ndarray, interval: float, where: str) -> np.ndarray:
        """Returns (T, h, w, 3) uint8: the frame at each time.

        Args:
            times: (T,) seconds, ascending.
            interval: seconds between frames.
            where: episode and feature, for errors.

        Raises:
            MuvlaError: no frame lies within a quarter of the interval of a time, or frames differ in size.
        """
        self._move_to(times[0], interval)
        images = np.empty((0,))
        for step, time in enumerate(times):
            while self._frame is None or self._time < time - interval / 4:
                if not self._advance(where):
                    raise self._too_short(where, f"its end before {time:.3f} s")
            if self._time > time + interval / 4:
                raise self._too_short(where, f"no frame at {time:.3f} s")
            images = self._add(images, step, len(times), where)
        return images

    def window(self, place: VideoPlace, steps: int, interval: float, where: str) -> np.ndarray | None:
        """Returns (T, h, w, 3) uint8: all frames of a place, whatever their times; None if their number is not T.

        Args:
            place: seconds of the episode in this video.
            steps: T.
            interval: seconds between frames.
            where: episode and feature, for errors.
        """
        self._move_to(place.start, interval)
        images, count = np.empty((0,)), 0
        while self._frame is None or self._time < place.start - interval / 4:
            if not self._advance(where):
                return None
        while place.end is None or self._time < place.end - interval / 4:
            if count == steps:
                return None
            images = self._add(images, count, steps, where)
            count += 1
            if not self._advance(where):
                break
        return images if count == steps else None

    def _add(self, images: np.ndarray, step: int, steps: int, where: str) -> np.ndarray:
        try:
            image = self._frame.to_ndarray(format="rgb24")
        except self._errors as error:
            raise self._damage(str(error), where) from None
        if step == 0:
            images = np.empty((steps, *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise self._damage("frames of several sizes", where)
        images[step] = image
        return images

    @property
    def _time(self) -> float:
        return float(self._frame.pts * self._base)

    def _move_to(self, time: float, interval: float) -> None:
        """Moves to a frame at or before `time`, unless the next frames are near."""
        if self._frame is not None and 0 <= time - self._time <= 2 * interval:
            return
        try:
            self._container.seek(int(max(0.0, time) / self._base), stream=self._stream)
        except self._errors as error:
            raise self._damage(f"no place at {time:.3f} s: {error}") from None
        self._decoding = self._container.decode(self._stream)
        self._frame = None

    def _advance(self, where: str) -> bool:
        """Decodes the next frame; False at the end."""
        try:
            frame = next(self._decoding, None)
        except self._errors as error:
            raise self._damage(str(error), where) from None
        if frame is not None and frame.pts is None:
            raise self._damage("a frame without a time", where)
        self._frame = frame if frame is not None else self._frame
        return frame is not None

    def _damage(self, got: str, where: str = "") -> MuvlaError:
        return MuvlaError(
            f"{where}: {self.path}".removeprefix(": "),
            got=f"no whole video ({got})",
            expected=f"a video of at most {MOST_PIXELS} pixels per frame that ffmpeg decodes",
            remedy=f"`ffmpeg -v error -i FILE -f null -` shows the damage; {self.path.stat().st_size} bytes lie here: "
            "copy the file again if the source has another size",
        )

    def _too_short(self, where: str, got: str) -> MuvlaError:
        return MuvlaError(
            f"{where}: {self.path}",
            got=got,
            expected="a frame for every row of the episode",
            remedy="the video is shorter than the rows or has another frame rate than fps in meta/info.json: copy the "
            "video again if the source has another size, or leave this episode out with --episodes",
        )
