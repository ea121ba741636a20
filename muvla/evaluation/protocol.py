"""An evaluation protocol: a frozen, versioned object whose hash is in every row.

Suites declare protocols (`Suite.protocols`); `muvla.evaluation.catalog` lists them and finds one by its id.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from muvla.config import TaskConfig
from muvla.config.serialization import ADDED_LATER, content_hash
from muvla.config.validation import is_whole
from muvla.envs.registry import bounds, longest_phases, task_info
from muvla.errors import MuvlaError, unknown_name

# First episode seed of the published evaluations (μVLA spec 6.1): episode i is reset with seed BASE + i.
BASE = 4_242_424_242

Regime = Literal["receding", "open_loop", "ensemble"]
Tick = Literal["env_step", "call"]
Beyond = Literal["refuse", "hold_last"]
Clock = Literal["step", "call"]
LONGEST_NAME = 100  # characters; a file name with the protocol's id and a probe's id must fit in 255 bytes
_NAME = re.compile(rf"[^./\\:][^/\\:]{{0,{LONGEST_NAME - 1}}}")
REGIMES, TICKS, BEYONDS, CLOCKS = get_args(Regime), get_args(Tick), get_args(Beyond), get_args(Clock)


@dataclass(frozen=True)
class Protocol:
    """One evaluation of a policy on one task. All fields are in the hash.

    step_limit: None leaves the task's limit.
    regime: `receding` queries at every step and executes the chunk's first action; `open_loop` executes h actions per
        query; `ensemble` queries at every step and executes a weighted mean of the last chunks' predictions for the
        step (`muvla.evaluation.ensemble`).
    tick: when memory is read and written: at every environment step, or at every query. The two differ under
        `open_loop` only.
    break_at_success: the episode ends at its first success. A task that ends at the first choice is not changed.
    image_size: pixels; None leaves the camera's size.
    slots: episodes per forward pass. Slots are part of the protocol, because rows are equal bit for bit at one batch
        shape only.
    beyond: where h exceeds the policy's chunk, refuse the policy, or execute the chunk's last action again.
    horizon: chunks that an ensemble combines; 1 under the other regimes.
    alpha: weight of an ensemble for predictions that agree with the newest one; 0 is the mean.
    clock: time that the memory is given with a tick: the environment's step, as in training, or the count of the
        episode's ticks before, as MemoryVLA's published evaluation counts. The two differ at tick `call` only.
    jpeg: quality of the JPEG compression that images undergo before the policy sees them; None for none.
    update: the policy's weights after this update of its training; None for the selected checkpoint.
    """

    name: str
    version: int
    task: TaskConfig
    episodes: int
    seed: int = BASE
    step_limit: int | None = None
    regime: Regime = "receding"
    h: int = 1
    tick: Tick = "env_step"
    break_at_success: bool = True
    image_size: int | None = None
    slots: int = 50
    beyond: Beyond = field(default="refuse", metadata=ADDED_LATER)
    horizon: int = field(default=1, metadata=ADDED_LATER)
    alpha: float = field(default=0.1, metadata=ADDED_LATER)
    jpeg: int | None = field(default=None, metadata=ADDED_LATER)
    clock: Clock = field(default="step", metadata=ADDED_LATER)
    update: int | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self):
        self._require_types()
        for name, choices in (("regime", REGIMES), ("tick", TICKS), ("beyond", BEYONDS), ("clock", CLOCKS)):
            if getattr(self, name) not in choices:
                raise unknown_name(f"protocol.{name}", getattr(self, name), choices)
        optionals = ("step_limit", "image_size", "jpeg", "update")
        for name in ("version", "episodes", "h", "slots", "horizon", *optionals):
            value = getattr(self, name)
            optional = name in optionals
            if not (is_whole(value) and value >= 1) and not (value is None and optional):
                expected = "a whole number, at least 1" + (", or null" if optional else "")
                raise MuvlaError(f"protocol.{name}", got=value, expected=expected, remedy=f"set {name} to 1 or more")
        if self.regime != "open_loop" and self.h != 1:
            raise MuvlaError(
                "protocol.h",
                got=self.h,
                expected=f"1 under {self.regime}",
                remedy="leave h out, or set regime to open_loop",
            )
        if self.regime != "open_loop" and self.beyond != "refuse":
            raise MuvlaError(
                "protocol.beyond",
                got=self.beyond,
                expected=f"refuse under {self.regime}: no chunk runs out",
                remedy="leave beyond out, or set regime to open_loop",
            )
        self._require_ensemble()
        if self.jpeg is not None and self.jpeg > 100:
            raise MuvlaError("protocol.jpeg", got=self.jpeg, expected="a quality of 1 to 100", remedy="set 95 or less")
        if not is_whole(self.seed) or self.seed < 0 or self.seed + self.episodes > 2**32:
            raise MuvlaError(
                "protocol.seed",
                got=f"{self.seed!r} + {self.episodes} episodes",
                expected="seeds in [0, 2^32)",
                remedy="simulators seed 32-bit generators: choose another block",
            )

    def _require_ensemble(self) -> None:
        """Horizon and alpha belong to an ensemble, which combines two chunks or more."""
        ensemble = self.regime == "ensemble"
        if (self.horizon >= 2) != ensemble:
            raise MuvlaError(
                "protocol.horizon",
                got=self.horizon,
                expected=f"{'at least 2' if ensemble else '1'} under {self.regime}",
                remedy="set the number of chunks to combine, published 7 for Bridge and 2 for Fractal"
                if ensemble
                else "leave horizon out, or set regime to ensemble",
            )
        is_number = isinstance(self.alpha, float | int) and not isinstance(self.alpha, bool)
        if not is_number or not math.isfinite(self.alpha) or not (ensemble or self.alpha == type(self).alpha):
            raise MuvlaError(
                "protocol.alpha",
                got=self.alpha,
                expected="a finite number" if ensemble else f"{type(self).alpha} under {self.regime}",
                remedy="leave alpha out for the published 0.1"
                + ("" if ensemble else ", or set regime to ensemble with a horizon"),
            )

    def _require_types(self) -> None:
        """The name becomes a part of file names and of metric names; the other types decide the hash."""
        name = self.name
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.isprintable():
            raise MuvlaError(
                "protocol.name",
                got=name,
                expected=f"1 to {LONGEST_NAME} printable characters without / \\ and :, the first one no dot",
                remedy="use letters, digits and hyphens, for example recall-position3-rh",
            )
        for field_name, cls in (("task", TaskConfig), ("break_at_success", bool)):
            if not isinstance(getattr(self, field_name), cls):
                raise MuvlaError(
                    f"protocol.{field_name}",
                    got=getattr(self, field_name),
                    expected=f"a {cls.__name__}",
                    remedy="use TaskConfig(…)" if cls is TaskConfig else "use True or False",
                )

    @property
    def id(self) -> str:
        """`recall-position3-rh@1`. Protocols of one id are equal; tests/golden/protocols.json holds the hashes."""
        return f"{self.name}@{self.version}"

    @cached_property
    def hash(self) -> str:
        return content_hash(self)


def require_decisions(protocols: Iterable[Protocol]) -> None:
    """Raises MuvlaError, before any episode runs, if a step limit may end an episode before its decision.

    Such a protocol would measure nothing. A task's own limit is longer than its phases.
    """
    for protocol in protocols:
        phases = longest_phases(protocol.task)
        if protocol.step_limit is not None and protocol.step_limit <= phases:
            raise MuvlaError(
                f"protocol {protocol.id}: step_limit",
                got=protocol.step_limit,
                expected=f"more than the {phases} steps that may pass before the decision of {protocol.task.name}",
                remedy="raise step_limit, or shorten the phases (task.cue, task.delay)",
            )


def chance(protocol: Protocol) -> float | None:
    """First-choice accuracy that no policy without memory can exceed in expectation.

    None where nothing is chosen, and where no such bound is known (`unbounded`).
    """
    return bounds(protocol.task).choice if protocol.regime != "ensemble" and protocol.h == 1 else None


def unbounded(protocol: Protocol) -> str:
    """Why no accuracy bounds the choices of a policy without memory; "" where `chance` bounds them.

    A chunk that is issued during the cue and executed open loop, or combined with later chunks, still acts at the
    decision. An arm that moves during
    the cue can keep the cue in its pose.
    """
    if chance(protocol) is not None:
        return ""
    reasons = ["chunks run open loop"] if protocol.h > 1 else []
    if protocol.regime == "ensemble":
        reasons.append("an action combines the chunks of earlier steps")
    if task_info(protocol.task.name).moves_before_decision:
        reasons.append("the arm moves in cue and delay")
    return " and ".join(reasons)
