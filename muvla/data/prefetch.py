"""Reading ahead: the next window is prepared in a thread while the one before it is trained on.

The stream stays where the last window that was taken left it, so that a checkpoint's cursor, a leak test that peeks
and a resume need not know of this: what was prepared is used only if the stream still stands where that preparation
began."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from muvla.data.stream import SlotStream, Window

Place = tuple[dict[str, Any], int]  # where the stream stands, and how many ticks are asked for


class Prefetcher:
    """The windows of `stream`: inside a `with` block made one ahead, outside it when they are asked for; the same in
    either case. `pin` is for a GPU; `features`, once set, are what frozen towers make of a window's images."""

    def __init__(self, stream: SlotStream, pin: bool = False):
        self.stream, self.pin = stream, pin
        self.features: Callable[[Window], Tensor] | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._prepared: tuple[Place, Future[tuple[Window, dict[str, Any]]]] | None = None

    def __enter__(self) -> Prefetcher:
        self._worker = ThreadPoolExecutor(1, "windows")
        return self

    def __exit__(self, *_) -> None:
        """Ends the thread, whatever ended the block."""
        self._worker.shutdown(cancel_futures=True)
        self._worker = self._prepared = None

    def window(self, ticks: int, last: bool = False) -> Window:
        """The stream's next window; none is prepared behind the `last`. An error of the preparation is raised here, as
        it is."""
        place = self.stream.state(), ticks
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] == place:
            window, after = prepared[1].result()
        else:  # the first one; or the stream was moved, and what was prepared belongs elsewhere
            window, after = self._make(place)
        self.stream.load_state(after)
        if self._worker is not None and not last:
            place = self.stream.state(), ticks
            self._prepared = place, self._worker.submit(self._make, place)
        return window

    def _make(self, place: Place) -> tuple[Window, dict[str, Any]]:
        """The window of a place, and where the stream stands behind it; on a twin that shares what never changes."""
        twin = copy.copy(self.stream)
        twin.load_state(place[0])
        window = twin.window(place[1])
        if self.features is not None:
            window = replace(window, features=self.features(window))
        return pin(window) if self.pin else window, twin.state()


def pin(window: Window) -> Window:
    """In page-locked memory, from which a GPU copies while others compute. torch gives that memory to another window
    only after the copies that were begun from it have ended."""
    tensors = {f.name: value for f in fields(window) if isinstance(value := getattr(window, f.name), Tensor)}
    return replace(window, **{name: tensor.pin_memory() for name, tensor in tensors.items()})
