"""Frames of a video by their time; a file is decoded once, from front to back, whatever episodes share it.

Legend: T frames, h×w image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muvla.data.readers.source import need, unlike


class VideoFile:
    """Raises MuvlaError for a file that is no video or was cut."""

    def __init__(self, path: Path):
        self.path = path
        self._av = need("av", "to decode LeRobot's videos")
        try:
            self._container = self._av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (self._av.FFmpegError, IndexError) as error:
            raise unlike(str(path), f"no whole video ({error})", "the episodes' frames") from None
        self._stream.thread_type = "AUTO"
        self._decoding = self._container.decode(self._stream)
        self._frame = None  # the last one decoded

    def close(self) -> None:
        self._container.close()

    def frames(self, times: np.ndarray, interval: float, where: str) -> np.ndarray:
        """(T, h, w, 3) uint8 of the frames at these times, in seconds and ascending, `interval` apart.

        Raises MuvlaError, with `where` they are wanted, if there is none within a quarter of the interval, and for
        frames of several sizes.
        """
        if self._frame is None or not 0 <= times[0] - self._frame.time <= 2 * interval:
            self._seek(times[0])
        images = []
        for time in times:
            while self._frame is None or self._frame.time < time - interval / 4:
                self._frame = self._next(where, time)
            if self._frame.time > time + interval / 4:
                raise unlike(f"{where}: {self.path}", f"no frame at {time:.3f} s", "one for every row")
            images.append(self._frame.to_ndarray(format="rgb24"))
        if len({image.shape for image in images}) > 1:
            raise unlike(f"{where}: {self.path}", "frames of several sizes", "one size")
        return np.stack(images)

    def _seek(self, time: float) -> None:
        """To a frame at or before `time` from which decoding can begin."""
        self._container.seek(int(max(0.0, time) / self._stream.time_base), stream=self._stream)
        self._decoding = self._container.decode(self._stream)
        self._frame = None

    def _next(self, where: str, time: float):
        try:
            return next(self._decoding)
        except (StopIteration, self._av.FFmpegError) as error:
            told = f"the end or damage ({error})" if str(error) else "its end"
            raise unlike(f"{where}: {self.path}", f"{told} before {time:.3f} s", "a frame for every row") from None
