"""A kind of intervention: what its name stands for, and what the rest of the code must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from muvla.interventions.base import SITES, Effect, Site
from muvla.interventions.context import Context
from muvla.interventions.schedule import Schedule
from muvla.memory.contract import State

STATES: tuple[Site, ...] = ("before_read", "after_write")  # sites that see the carried state


@dataclass(frozen=True)
class InterventionKind:
    """One entry of `muvla.interventions.registry`.

    Attributes:
        name: first part of an intervention's name.
        site: site where none is named.
        function: `(state of one slot, context) → state`.
        effect: what the intervention does to what is read, see `Intervention`.
        argument: reads the text in brackets (empty where there is none); None for a kind without argument. It raises
            ValueError with the expected form.
        example: an argument that changes the actions, for tests and help.
        identity: the argument with which the kind changes nothing.
        schedule: schedule where none is named; None is always.
        sites: sites at which the kind makes sense.
        donor: what other episodes give to the function, a name in `muvla.interventions.donors.assignment`.
        shams: kinds with the same side effects without the content.
        whole_state: the function puts a whole state; else it sees the valid entries of float leaves alone.
        removes: the function returns which tokens leave the sequence, (m,) bool, in place of a state.
        argument_is_token: the argument is the index of a token.
        needs_two_tokens: with an argument other than `identity`, at least two tokens must be acted on.
        locks: the memory stays locked over several ticks, so that the kind has no single moment of action.
        needs_lasting_schedule: a schedule of one step is refused.
        single_event: a schedule of more than one step is refused.
        on_times: the function sees the times of the valid units, in place of the memory's content.
        on_perception: the function sees the perceptual tokens of an action expert alone.
        skips: the whole read is left out; the function is not called.
        unconfinable: reason why `[a:b]` is refused; empty where it is allowed.
    """

    name: str
    site: Site
    function: Callable[[State, Context], State]
    effect: Effect
    argument: Callable[[str], Any] | None = None
    example: str = ""
    identity: Any = None
    schedule: Schedule | None = None
    sites: tuple[Site, ...] = SITES
    donor: str | None = None
    shams: tuple[str, ...] = ()
    whole_state: bool = False
    removes: bool = False
    argument_is_token: bool = False
    needs_two_tokens: bool = False
    locks: bool = False
    needs_lasting_schedule: bool = False
    single_event: bool = False
    on_times: bool = False
    on_perception: bool = False
    skips: bool = False
    unconfinable: str = ""

    def least_units(self, argument: Any, tokens: tuple[int, int] | None) -> int:
        """Units that a memory needs for this argument and these chosen units."""
        needs = [tokens[1] if tokens else 0]
        if self.removes:
            needs.append(1)
        if self.argument_is_token:
            needs.append(argument + 1)
        if self.needs_two_tokens and argument != self.identity:
            needs.append(2)
        return max(needs)
