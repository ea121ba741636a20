"""Regimes: how a session's chunks become the actions of its answers.

| regime | ticks | answer |
|---|---|---|
| `receding` | at every request | the chunk's first action |
| `open_loop` h, tick `env_step` | at every request | the next action of the chunk in use; a new chunk after h actions |
| `open_loop` h, tick `call` | at every h-th request | the same; requests in between touch neither model nor memory |
| `ensemble` | at every request | weighted mean of the last chunks' predictions (`muvla.evaluation.ensemble`) |
| `chunk` h | at every request | the first h actions; the client executes them all before its next request |

The first three are the regimes of protocols, with the queue of actions in the server. `chunk` leaves the queue to the
client.

Legend: H chunk, A action dim.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.ensemble import combine_chunks
from muvla.serving.gripper import RAW, Gripper

REGIMES, TICKS = ("receding", "open_loop", "ensemble", "chunk"), ("env_step", "call")


@dataclass(frozen=True)
class Regime:
    """A regime and its numbers.

    Attributes:
        name: a name of the table.
        h: actions per chunk in use, of `open_loop` and `chunk`, which need the number; else 1.
        tick: when `open_loop` reads and writes the memory.
        horizon: number of chunks that `ensemble` combines.
        alpha: weight of agreement with the newest prediction, of `ensemble`.
        gripper: form of the last number; a threshold is set before and after an ensemble, as in MemoryVLA's
            deployment.
    """

    name: str = "receding"
    h: int | None = None
    tick: str = "env_step"
    horizon: int = 1
    alpha: float = 0.1
    gripper: Gripper = RAW

    def __post_init__(self):
        for option, value, names in (("--regime", self.name, REGIMES), ("--tick", self.tick, TICKS)):
            if value not in names:
                raise unknown_name(option, value, names)
        loops, ensemble = self.name in ("open_loop", "chunk"), self.name == "ensemble"
        if self.h is None:
            if loops:
                expected, remedy = f"a number under --regime {self.name}", "give --h 8 for eight actions of every chunk"
                raise MuvlaError("--h", got=None, expected=expected, remedy=remedy)
            object.__setattr__(self, "h", 1)
        for option, value, fits, expected in (
            ("--h", self.h, self.h >= 1 if loops else self.h == 1, "at least 1" if loops else "1"),
            ("--tick", self.tick, self.tick == "env_step" or self.name == "open_loop", "env_step"),
            ("--horizon", self.horizon, (self.horizon >= 2) == ensemble, "at least 2" if ensemble else "1"),
            ("--alpha", self.alpha, np.isfinite(self.alpha) and (ensemble or self.alpha == Regime.alpha), "0.1"),
        ):
            if not fits:
                expected = f"{expected} under --regime {self.name}"
                remedy = f"leave {option} out, or choose another --regime"
                if option == "--horizon" and ensemble:
                    remedy = "give --horizon 2 (published for Fractal) or 7 (for Bridge)"
                raise MuvlaError(option, got=value, expected=expected, remedy=remedy)

    def require_chunk(self, chunk: int) -> None:
        """Raises MuvlaError if the policy's chunk of H actions is too short."""
        for option, value in (("--h", self.h), ("--horizon", self.horizon)):
            if value > chunk:
                expected = f"at most the policy's chunk H = {chunk}"
                raise MuvlaError(option, got=value, expected=expected, remedy=f"serve with {option} {chunk} or less")

    @property
    def steps(self) -> int:
        """Environment steps that pass between two requests."""
        return self.h if self.name == "chunk" else 1

    @property
    def carries(self) -> bool:
        """True if an answer depends on earlier requests, whatever the policy."""
        return self.name in ("open_loop", "ensemble")

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class ActionQueue:
    """The chunks of one session's episode."""

    def __init__(self, regime: Regime):
        self.regime = regime
        self._chunk: np.ndarray | None = None
        self._age = 0
        self._last: deque[np.ndarray] = deque(maxlen=regime.horizon)

    @property
    def needs_tick(self) -> bool:
        """False where the chunk in use answers the next request without the model."""
        return self.regime.tick == "env_step" or self._is_used_up

    @property
    def _is_used_up(self) -> bool:
        return self._chunk is None or self._age >= self.regime.h

    def take(self, chunk: np.ndarray | None) -> np.ndarray:
        """Return the actions (n, A) of an answer, from the chunk (H, A) of this request's tick.

        `chunk` is None without a tick.
        """
        gripper = self.regime.gripper
        return gripper.answer(self._take(None if chunk is None else gripper.threshold(chunk)))

    def _take(self, chunk: np.ndarray | None) -> np.ndarray:
        if self.regime.name == "chunk":
            return chunk[: self.regime.h]
        if self.regime.name == "ensemble":
            self._last.append(chunk)
            action = combine_chunks(list(self._last), self.regime.alpha)[None].astype(chunk.dtype)
            return self.regime.gripper.threshold(action, cut=0.5)
        if self._is_used_up:
            self._chunk, self._age = chunk, 0
        self._age += 1
        return self._chunk[self._age - 1][None]
