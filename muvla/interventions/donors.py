"""What an intervention takes from other episodes: a bank of their memories, recorded by a plain rollout of the same
protocol at the same site and schedule, and who gets what of it.

| kind | gets |
|---|---|
| `transplant` | the state of an episode with another target, drawn by the recipient's seed |
| `transplant_same` | of another episode with the same target: its sham |
| `transplant_self` | of itself: the identity |
| `mean` | the mean of all episodes at the same phase and step into it; past the longest, at its last step |
| `direction` | a decoder's direction from its own target to another |
| `orthogonal` | another direction, of the same norm and orthogonal to that: its sham |

A donor of the first two has the recipient's lengths of blank, cue and delay, so that both are at the same step of the
same phase.

Legend: n episodes, P numbers in a slot's state, C targets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import gymnasium
import numpy as np
import torch

from muvla.config import TaskConfig
from muvla.data.statistics import Statistics
from muvla.envs.registry import open_env
from muvla.errors import MuvlaError
from muvla.evaluation.evaluate import default_workers
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.evaluation.slots import Outcome
from muvla.interventions.spec import intervention
from muvla.memory.base import State, export
from muvla.models.policy import Policy
from muvla.randomness import key, numpy_rng
from muvla.recurrence import Context, Intervention

Lengths = tuple[int, int, int]  # steps of blank, cue and delay


@dataclass(frozen=True)
class Donor:
    """A recorded episode."""

    seed: int
    target: int | None
    lengths: Lengths
    states: dict[int, State]  # by step, on the CPU


@dataclass(frozen=True)
class Gift:
    """What an episode is given: by whom, of which target, and the state or what is added to it at a step, if any."""

    seed: int | None
    target: int | None
    state: Callable[[int], State | None]


@dataclass(frozen=True)
class DonorBank:
    """The recorded episodes of a protocol, for one intervention."""

    donors: tuple[Donor, ...]  # by seed
    kind: Intervention
    fitted: dict[Any, Any] = field(default_factory=dict)  # decoders, by fold

    def gift(self, seed: int, info: dict[str, Any]) -> Gift:
        """For the episode of this seed, of which `info` tells target and lengths. Raises MuvlaError if there is no
        donor for it."""
        if self.kind.donor != "mean" and info["target"] is None:
            raise self._lacks(seed, "a task without target", "a task in which something is chosen")
        return GIVERS[self.kind.donor](self, seed, info["target"], lengths_of(info))

    def require(self) -> None:
        """Raises MuvlaError if one of its own episodes lacks a donor: before any is run with it."""
        for one in self.donors:
            names = ("blank_length", "cue_length", "delay_length")
            self.gift(one.seed, {"target": one.target, **dict(zip(names, one.lengths, strict=True))})

    @cached_property
    def means(self) -> dict[tuple[int, int], State]:
        """By phase and step into it."""
        found: dict[tuple[int, int], list[State]] = {}
        for one in self.donors:
            for step, state in one.states.items():
                found.setdefault(_place(one.lengths, step), []).append(state)
        return {
            place: {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
            for place, states in found.items()
        }

    def _lacks(self, seed: int, got: str, expected: str) -> MuvlaError:
        return MuvlaError(
            f"intervention {self.kind.name}, donors of episode seed {seed}", got=got, expected=expected,
            remedy="fix the lengths of the phases (task.cue, task.delay), or evaluate more episodes",
        )  # fmt: skip


def lengths_of(info: dict[str, Any]) -> Lengths:
    return tuple(info.get(f"{name}_length") or 0 for name in ("blank", "cue", "delay"))


def _place(lengths: Lengths, step: int) -> tuple[int, int]:
    """(which phase, step into it)."""
    ends = list(accumulate(lengths))
    phase = bisect_right(ends, step)
    return phase, step - (ends[phase - 1] if phase else 0)


# --- who gets what ----------------------------------------------------------------------------------------------------


def _other(bank: DonorBank, seed: int, target: int, lengths: Lengths) -> Gift:
    return _drawn(bank, seed, lengths, "another target", lambda one: one.target not in (target, None))


def _same(bank: DonorBank, seed: int, target: int, lengths: Lengths) -> Gift:
    wanted = lambda one: one.target == target and one.seed != seed  # noqa: E731
    return _drawn(bank, seed, lengths, f"target {target}, besides itself", wanted)


def _self(bank: DonorBank, seed: int, target: int, lengths: Lengths) -> Gift:
    return _drawn(bank, seed, lengths, "its own seed", lambda one: one.seed == seed)


def _drawn(bank: DonorBank, seed: int, lengths: Lengths, what: str, wanted: Callable[[Donor], bool]) -> Gift:
    alike = [one for one in bank.donors if one.lengths == lengths]
    pool = [one for one in alike if wanted(one)]
    if not pool:
        phases = "blank {}, cue {}, delay {}".format(*lengths)
        raise bank._lacks(seed, f"none among {len(alike)} episodes of {phases}", f"one of {what} with these lengths")
    one = pool[int(numpy_rng(seed, "donor", bank.kind.donor).integers(len(pool)))]
    return Gift(one.seed, one.target, one.states.get)


def _mean(bank: DonorBank, seed: int, target: int | None, lengths: Lengths) -> Gift:
    def state(step: int) -> State | None:
        phase, into = _place(lengths, step)
        reached = [i for p, i in bank.means if p == phase and i <= into]
        return bank.means[phase, max(reached)] if reached else None

    return Gift(None, None, state)


def _direction(bank: DonorBank, seed: int, target: int, lengths: Lengths, orthogonal: bool = False) -> Gift:
    """s times the distance of the class means, along the difference of the two classes' weights in a ridge regression
    onto indicators. It is fitted on the other half of the episodes, in its dual form: n is small and P is not."""
    half = 1 - _half(seed)
    if half not in bank.fitted:
        bank.fitted[half] = _fit([one for one in bank.donors if _half(one.seed) == half and one.states])
    classes, means, weights, shapes = bank.fitted[half]
    others = [c for c in classes if c != target]
    if target not in classes or not others:
        raise bank._lacks(seed, f"targets {classes} in the other half", f"target {target} and another")
    towards = others[int(numpy_rng(seed, "direction", "target").integers(len(others)))]
    along = weights[classes.index(towards)] - weights[classes.index(target)]
    distance = np.linalg.norm(means[classes.index(towards)] - means[classes.index(target)])
    unit = along / (np.linalg.norm(along) or 1.0)  # where nothing can be told apart, nothing is added
    if orthogonal:
        drawn = numpy_rng(seed, "direction", "orthogonal").standard_normal(len(unit))
        drawn -= (drawn @ unit) * unit
        unit = drawn / np.linalg.norm(drawn)
    delta = torch.from_numpy((bank.kind.argument * distance * unit).astype(np.float32))
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    parts = dict(zip(shapes, delta.split(sizes), strict=True))
    added = {name: part.view(shapes[name]) for name, part in parts.items()}
    return Gift(None, towards, lambda step: added)


def _orthogonal(bank: DonorBank, seed: int, target: int, lengths: Lengths) -> Gift:
    return _direction(bank, seed, target, lengths, orthogonal=True)


def _half(seed: int) -> int:
    return key(seed, "direction", "half") % 2


def _fit(donors: list[Donor]) -> tuple[list[int], np.ndarray, np.ndarray, dict[str, torch.Size]]:
    """Classes, their means (C, P) and weights (C, P), and the shapes of the leaves. The ridge is the mean of the Gram
    matrix's diagonal."""
    classes = sorted({one.target for one in donors} - {None})
    if not classes:
        return [], np.empty(0), np.empty(0), {}
    donors = [one for one in donors if one.target is not None]
    flat = [torch.cat([leaf.flatten() for leaf in next(iter(one.states.values())).values()]) for one in donors]
    x = torch.stack(flat).double().numpy()
    y = np.array([[one.target == c for c in classes] for one in donors], dtype=np.float64)
    means = np.stack([x[y[:, i] == 1].mean(axis=0) for i in range(len(classes))])
    centred = x - x.mean(axis=0)
    gram = centred @ centred.T
    ridge = np.trace(gram) / len(x) or 1.0
    weights = np.linalg.solve(gram + ridge * np.eye(len(x)), y - y.mean(axis=0)).T @ centred
    return classes, means, weights, {name: leaf.shape for name, leaf in next(iter(donors[0].states.values())).items()}


GIVERS: dict[str, Callable[..., Gift]] = {
    "other": _other, "same": _same, "self": _self, "mean": _mean, "direction": _direction, "orthogonal": _orthogonal,
}  # fmt: skip


# --- recording --------------------------------------------------------------------------------------------------------


def with_donors(
    name: str,
    policy: Policy,
    statistics: Statistics,
    protocol: Protocol,
    recorded: dict[Any, tuple[Donor, ...]],
    check_stop: Callable[[], None] = lambda: None,
    workers: int | None = None,
    env_factory: Callable[[TaskConfig, int | None], gymnasium.Env] = open_env,
) -> Intervention | None:
    """The intervention of this name, with its bank, if it takes one. Banks are kept in `recorded`: those of one policy,
    of which one serves all kinds at a site and schedule. A bank is n states for every tick at which the schedule fires.

    Raises MuvlaError if an episode lacks a donor."""
    kind = intervention(name)
    if kind is None or kind.donor is None:
        return kind
    place = protocol.hash, kind.site, kind.schedule
    if place not in recorded:
        make_env = lambda: env_factory(protocol.task, protocol.image_size)  # noqa: E731
        environments = workers or default_workers(protocol)
        recorded[place] = _record(kind, policy, statistics, protocol, make_env, environments, check_stop)
    bank = DonorBank(recorded[place], kind)
    bank.require()
    return replace(kind, bank=bank)


def _record(
    kind: Intervention,
    policy: Policy,
    statistics: Statistics,
    protocol: Protocol,
    make_env: Callable[[], gymnasium.Env],
    environments: int,
    check_stop: Callable[[], None],
) -> tuple[Donor, ...]:
    states: dict[int, dict[int, State]] = {}
    outcomes: list[Outcome] = []

    def keep(state: State, context: Context) -> State:
        if context.tick == 0 or context.seed not in states:
            states[context.seed] = {}
        states[context.seed][context.tick] = {name: leaf.cpu() for name, leaf in export(state).items()}
        return state

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        check_stop()

    plain = Intervention(f"{kind.name}, its donors", kind.site, keep, "keeps", kind.schedule)
    rollout = Rollout(policy, statistics, protocol, make_env, plain, environments)
    try:
        rollout.run(range(protocol.seed, protocol.seed + protocol.episodes), ended)
    finally:
        rollout.close()
    found = [
        Donor(o.seed, o.info["target"], lengths_of(o.info), states.get(o.seed, {})) for o in outcomes if not o.error
    ]
    return tuple(sorted(found, key=lambda one: one.seed))
