"""What an intervention takes from other episodes: a bank of their memories, recorded by a plain rollout of the same
protocol at the same site and schedule, and who gets what of it.

| kind | gets |
|---|---|
| `transplant` | the state of an episode that remembers another thing, drawn by the recipient's seed |
| `transplant_same` | of another episode that remembers the same: its sham |
| `transplant_self` | of itself: the identity |
| `mean` | the mean of the other episodes at the same phase and step into it |
| `direction` | a decoder's direction from what it remembers to another thing |
| `orthogonal` | another direction, of the same norm and orthogonal to that: its sham |

What an episode remembers is its target's identity where it has one (a colour, which lies elsewhere in every episode),
else its target. The target of a gift is the place that the thing has in the recipient's own scene.

A donor of the first two has the recipient's lengths of blank, cue and delay, so that both are at the same step of the
same phase; and it got to where the schedule first fires. A recipient that itself never gets there is given nothing.

The mean is held, past the last step of a phase that at least half of the episodes recorded in it reach.

Legend: n episodes, P numbers in a slot's state, C targets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from muvla.errors import MuvlaError
from muvla.interventions.base import Intervention
from muvla.memory.base import State
from muvla.utils.rng import key, numpy_rng

Lengths = tuple[int, int, int]  # steps of blank, cue and delay


@dataclass(frozen=True)
class Donor:
    """A recorded episode."""

    seed: int
    remembered: int | None  # identity or target
    lengths: Lengths
    states: dict[int, State]  # by step, on the CPU

    @property
    def by_place(self) -> dict[tuple[int, int], State]:
        """By phase and step into it."""
        return {_place(self.lengths, step): state for step, state in self.states.items()}


@dataclass(frozen=True)
class DonorAssignment:
    """What an episode is given: by whom, of which target, and the state or what is added to it at a step, if any. Of
    which target is the place in the recipient's scene; in what a giver returns, the thing that is remembered."""

    seed: int | None
    target: int | None
    state: Callable[[int], State | None]


@dataclass(frozen=True)
class DonorBank:
    """The recorded episodes of a protocol, for one intervention."""

    donors: tuple[Donor, ...]  # by seed
    kind: Intervention
    fitted: dict[Any, Any] = field(default_factory=dict)  # decoders, by fold

    def gift(self, seed: int, info: dict[str, Any]) -> DonorAssignment:
        """For the episode of this seed, of which `info` tells what it remembers, where that lies, and lengths. Raises
        MuvlaError if there is no donor for it."""
        own = remembered(info)
        if self.kind.donor != "mean" and own is None:
            raise self._lacks(seed, "a task without target", "a task in which something is chosen")
        if seed in self.by_seed and not self.by_seed[seed].states:
            return DonorAssignment(None, None, lambda step: None)  # it ends before the schedule fires
        gift, places = ASSIGNERS[self.kind.donor](self, seed, own, lengths_of(info)), info.get("places_of")
        return gift if places is None or gift.target is None else replace(gift, target=places[gift.target])

    def require(self) -> None:
        """Raises MuvlaError if one of its own episodes lacks a donor: before any is run with it."""
        for one in self.donors:
            names = ("blank_length", "cue_length", "delay_length")
            self.gift(one.seed, {"target": one.remembered, **dict(zip(names, one.lengths, strict=True))})

    @cached_property
    def by_seed(self) -> dict[int, Donor]:
        return {one.seed: one for one in self.donors}

    @cached_property
    def sums(self) -> dict[tuple[int, int], tuple[int, State]]:
        """By phase and step into it: of how many episodes, and the sum of their states in float64."""
        found: dict[tuple[int, int], list[State]] = {}
        for one in self.donors:
            for place, state in one.by_place.items():
                found.setdefault(place, []).append(state)
        return {
            place: (len(all), {name: torch.stack([one[name].double() for one in all]).sum(dim=0) for name in all[0]})
            for place, all in found.items()
        }

    @cached_property
    def longest(self) -> dict[int, int]:
        """Phase → the last step into it that at least half of the episodes with a state in it reach."""
        last: dict[int, list[int]] = {}
        for one in self.donors:
            for phase in {phase for phase, _ in one.by_place}:
                last.setdefault(phase, []).append(max(into for p, into in one.by_place if p == phase))
        return {phase: sorted(ends)[len(ends) // 2] for phase, ends in last.items()}

    def _lacks(self, seed: int, got: str, expected: str) -> MuvlaError:
        return MuvlaError(
            f"intervention {self.kind.name}, donors of episode seed {seed}",
            got=got,
            expected=expected,
            remedy="fix the lengths of the phases (task.cue, task.delay), or evaluate more episodes",
        )


def remembered(info: Mapping[str, Any]) -> int | None:
    """What an episode's memory is to hold: its target's identity, where that is not its place."""
    return info["target"] if info.get("identity") is None else info["identity"]


def lengths_of(info: dict[str, Any]) -> Lengths:
    return tuple(info.get(f"{name}_length") or 0 for name in ("blank", "cue", "delay"))


def _place(lengths: Lengths, step: int) -> tuple[int, int]:
    """(which phase, step into it)."""
    ends = list(accumulate(lengths))
    phase = bisect_right(ends, step)
    return phase, step - (ends[phase - 1] if phase else 0)


# --- who gets what ----------------------------------------------------------------------------------------------------


def _other(bank: DonorBank, seed: int, own: int, lengths: Lengths) -> DonorAssignment:
    return _drawn(bank, seed, lengths, "another target", lambda one: one.remembered not in (own, None))


def _same(bank: DonorBank, seed: int, own: int, lengths: Lengths) -> DonorAssignment:
    wanted = lambda one: one.remembered == own and one.seed != seed  # noqa: E731
    return _drawn(bank, seed, lengths, f"target {own}, besides itself", wanted)


def _self(bank: DonorBank, seed: int, own: int, lengths: Lengths) -> DonorAssignment:
    return _drawn(bank, seed, lengths, "its own seed", lambda one: one.seed == seed)


def _drawn(bank: DonorBank, seed: int, lengths: Lengths, what: str, wanted: Callable[[Donor], bool]) -> DonorAssignment:
    alike = [one for one in bank.donors if one.lengths == lengths and one.states]
    pool = [one for one in alike if wanted(one)]
    if not pool:
        phases = "blank {}, cue {}, delay {}".format(*lengths)
        raise bank._lacks(
            seed,
            f"none among {len(alike)} episodes of {phases} that got to where it fires",
            f"one of {what} with these lengths",
        )
    one = pool[int(numpy_rng(seed, "donor", bank.kind.donor).integers(len(pool)))]
    return DonorAssignment(one.seed, one.remembered, one.states.get)


def _mean(bank: DonorBank, seed: int, own: int | None, lengths: Lengths) -> DonorAssignment:
    itself = bank.by_seed[seed].by_place if seed in bank.by_seed else {}

    def state(step: int) -> State | None:
        phase, into = _place(lengths, step)
        into = min(into, bank.longest.get(phase, into))
        reached = [i for p, i in bank.sums if p == phase and i <= into and bank.sums[p, i][0] > ((p, i) in itself)]
        if not reached:
            return None
        place = phase, max(reached)
        n, total = bank.sums[place]
        if place in itself:
            n, total = n - 1, {name: leaf - itself[place][name] for name, leaf in total.items()}
        return {name: (leaf / n).float() for name, leaf in total.items()}

    if not any(one.states for one in bank.donors if one.seed != seed):
        raise bank._lacks(seed, "no other episode that got to where it fires", "at least one")

    return DonorAssignment(None, None, state)


def _direction(bank: DonorBank, seed: int, own: int, lengths: Lengths, orthogonal: bool = False) -> DonorAssignment:
    """s times the distance of the class means, along the difference of the two classes' weights in a ridge regression
    onto indicators. It is fitted on the other half of the episodes, in its dual form: n is small and P is not."""
    half = 1 - _half(seed)
    if half not in bank.fitted:
        bank.fitted[half] = _fit([one for one in bank.donors if _half(one.seed) == half and one.states])
    classes, means, weights, shapes = bank.fitted[half]
    others = [c for c in classes if c != own]
    if own not in classes or not others:
        raise bank._lacks(seed, f"targets {classes} in the other half", f"target {own} and another")
    towards = others[int(numpy_rng(seed, "direction", "target").integers(len(others)))]
    along = weights[classes.index(towards)] - weights[classes.index(own)]
    distance = np.linalg.norm(means[classes.index(towards)] - means[classes.index(own)])
    unit = along / (np.linalg.norm(along) or 1.0)  # where nothing can be told apart, nothing is added
    if orthogonal:
        drawn = numpy_rng(seed, "direction", "orthogonal").standard_normal(len(unit))
        drawn -= (drawn @ unit) * unit
        unit = drawn / np.linalg.norm(drawn)
    delta = torch.from_numpy((bank.kind.argument * distance * unit).astype(np.float32))
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    parts = dict(zip(shapes, delta.split(sizes), strict=True))
    added = {name: part.view(shapes[name]) for name, part in parts.items()}
    return DonorAssignment(None, towards, lambda step: added)


def _orthogonal(bank: DonorBank, seed: int, own: int, lengths: Lengths) -> DonorAssignment:
    return _direction(bank, seed, own, lengths, orthogonal=True)


def _half(seed: int) -> int:
    return key(seed, "direction", "half") % 2


def _fit(donors: list[Donor]) -> tuple[list[int], np.ndarray, np.ndarray, dict[str, torch.Size]]:
    """Classes, their means (C, P) and weights (C, P), and the shapes of the leaves. The ridge is the mean of the Gram
    matrix's diagonal."""
    classes = sorted({one.remembered for one in donors} - {None})
    if not classes:
        return [], np.empty(0), np.empty(0), {}
    donors = [one for one in donors if one.remembered is not None]
    flat = [torch.cat([leaf.flatten() for leaf in next(iter(one.states.values())).values()]) for one in donors]
    x = torch.stack(flat).double().numpy()
    y = np.array([[one.remembered == c for c in classes] for one in donors], dtype=np.float64)
    means = np.stack([x[y[:, i] == 1].mean(axis=0) for i in range(len(classes))])
    centred = x - x.mean(axis=0)
    gram = centred @ centred.T
    ridge = np.trace(gram) / len(x) or 1.0
    weights = np.linalg.solve(gram + ridge * np.eye(len(x)), y - y.mean(axis=0)).T @ centred
    return classes, means, weights, {name: leaf.shape for name, leaf in next(iter(donors[0].states.values())).items()}


ASSIGNERS: dict[str, Callable[..., DonorAssignment]] = {
    "other": _other,
    "same": _same,
    "self": _self,
    "mean": _mean,
    "direction": _direction,
    "orthogonal": _orthogonal,
}
