"""Prefetching: a thread prepares the next window while the trainer uses the current one.

The stream stays where the last taken window left it. So a checkpoint's cursor, a leak test and a resume need not know
about prefetching: a prepared window is used only if the stream still stands where its preparation began.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from muvla.data.stream import SlotStream, Window

Place = tuple[dict[str, Any], int]  # state of the stream, and the number of ticks to read


class Prefetcher:
    """The windows of a stream. Inside a `with` block a thread prepares each window ahead; outside, a window is made on
    demand.

    Both ways give the same windows.

    Attributes:
        stream: the stream.
        pin: put windows into page-locked memory, for a GPU.
        features: returns the features of a window's images; set by the vision cache.
    """

    def __init__(self, stream: SlotStream, pin: bool = False):
        self.stream, self.pin = stream, pin
        self.features: Callable[[Window], Tensor] | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._prepared: tuple[Place, Future[tuple[Window, dict[str, Any]]]] | None = None

    def __enter__(self) -> Prefetcher:
        self._worker = ThreadPoolExecutor(1, "windows")
        return self

    def __exit__(self, *_) -> None:
        """Ends the thread, also after an error."""
        self._worker.shutdown(cancel_futures=True)
        self._worker = self._prepared = None

    def window(self, ticks: int, last: bool = False) -> Window:
        """Returns the stream's next window; after the `last` window none is prepared. Raises errors of the
        preparation."""
        place = self.stream.state(), ticks
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] == place:
            window, after = prepared[1].result()
        else:  # the first window, or the stream has moved since the preparation
            window, after = self._make(place)
        self.stream.load_state(after)
        if self._worker is not None and not last:
            place = self.stream.state(), ticks
            self._prepared = place, self._worker.submit(self._make, place)
        return window

    def _make(self, place: Place) -> tuple[Window, dict[str, Any]]:
        """Makes the window at a place and returns it with the stream's next state; works on a copy of the stream."""
        twin = copy.copy(self.stream)
        twin.load_state(place[0])
        window = twin.window(place[1])
        if self.features is not None:
            window = replace(window, features=self.features(window))
        return pin(window) if self.pin else window, twin.state()


def pin(window: Window) -> Window:
    """Copies the window to page-locked memory, from which a GPU copies while others compute.

    torch reuses this memory only after the copies from it have ended.
    """
    tensors = {f.name: value for f in fields(window) if isinstance(value := getattr(window, f.name), Tensor)}
    return replace(window, **{name: tensor.pin_memory() for name, tensor in tensors.items()})
