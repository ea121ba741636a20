"""Frames of a video by their time; a file is decode_image once from front to back, however many episodes it holds.

Legend: T frames, h×w image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muvla.data.readers.source import import_package, mismatch


class VideoFile:
    """An open video. Opening raises MuvlaError for a file that is no video or was cut."""

    def __init__(self, path: Path):
        self.path = path
        self._av = import_package("av", "to decode LeRobot's videos")
        try:
            self._container = self._av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (self._av.FFmpegError, IndexError) as error:
            raise mismatch(str(path), f"no whole video ({error})", "the episodes' frames") from None
        self._stream.thread_type = "AUTO"
        self._decoding = self._container.decode(self._stream)
        self._frame = None  # the last decode_image frame

    def close(self) -> None:
        self._container.close()

    def frames(self, times: np.ndarray, interval: float, where: str) -> np.ndarray:
        """Returns (T, h, w, 3) uint8.

        Args:
            times: (T,) seconds, ascending.
            interval: seconds between frames.
            where: episode, for errors.

        Raises:
            MuvlaError: no frame lies within a quarter of the interval of a time, or frames differ in size.
        """
        if self._frame is None or not 0 <= times[0] - self._frame.time <= 2 * interval:
            self._seek(times[0])
        images = []
        for time in times:
            while self._frame is None or self._frame.time < time - interval / 4:
                self._frame = self._next(where, time)
            if self._frame.time > time + interval / 4:
                raise mismatch(f"{where}: {self.path}", f"no frame at {time:.3f} s", "a frame for every row")
            images.append(self._frame.to_ndarray(format="rgb24"))
        if len({image.shape for image in images}) > 1:
            raise mismatch(f"{where}: {self.path}", "frames of several sizes", "one size")
        return np.stack(images)

    def _seek(self, time: float) -> None:
        """Moves to a frame at or before `time` where decoding can begin."""
        self._container.seek(int(max(0.0, time) / self._stream.time_base), stream=self._stream)
        self._decoding = self._container.decode(self._stream)
        self._frame = None

    def _next(self, where: str, time: float):
        try:
            return next(self._decoding)
        except (StopIteration, self._av.FFmpegError) as error:
            end = f"the end or damage ({error})" if str(error) else "its end"
            raise mismatch(f"{where}: {self.path}", f"{end} before {time:.3f} s", "a frame for every row") from None
