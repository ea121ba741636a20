"""The text that names an intervention, and is its identity: `KIND[(ARGUMENT)][TOKENS][/SITE][@SCHEDULE]`.

    zero                        at every tick, at the kind's site
    noise_relative(0.5)@3       with an argument, once
    zero[0:2]/read@cue_end..    the tokens 0 and 1 alone, as they are read, from the cue's last step on

Equal interventions have one name: a kind's defaults are left out.
"""

from __future__ import annotations

import re
from typing import Any

from muvla.errors import MuvlaError
from muvla.interventions.base import Intervention
from muvla.interventions.kind import InterventionKind
from muvla.interventions.registry import get_intervention_kind
from muvla.interventions.schedule import Schedule, parse_schedule

FORM = "KIND[(ARGUMENT)][TOKENS][/SITE][@SCHEDULE]"
_FORM = re.compile(
    r"(?P<kind>\w+)(?:\((?P<argument>[^()]*)\))?(?:\[(?P<first>\d+):(?P<stop>\d+)\])?(?:/(?P<site>\w+))?"
    r"(?:@(?P<schedule>.+))?"
)


def parse_intervention(text: str | None) -> Intervention | None:
    """The intervention of this name; None and "none" are no intervention.

    Raises:
        MuvlaError: names the part of the text that is wrong.
    """
    if text in (None, "none"):
        return None
    parts = _FORM.fullmatch(text)
    if parts is None:
        raise MuvlaError("intervention", got=text, expected=f"none or {FORM}", remedy="write it in this form")
    spec = get_intervention_kind(parts["kind"])
    argument = _argument(spec, parts["argument"])
    tokens = _tokens(spec, argument, parts)
    site = parts["site"] or spec.site
    if site not in spec.sites:
        raise MuvlaError(
            f"intervention {text}",
            got=f"site {site}",
            expected=f"one of {', '.join(spec.sites)}",
            remedy=f"leave the site out, which is {spec.site}",
        )
    schedule = _schedule(spec, parts["schedule"])
    return Intervention(
        _name(spec, argument, tokens, site, schedule),
        site,
        spec.function,
        spec.effect,
        schedule,
        tokens,
        argument,
        spec.removes,
        spec.donor,
        whole_state=spec.whole_state,
        kind_name=spec.name,
        least_units=spec.least_units(argument, tokens),
        locks=spec.locks,
        on_times=spec.on_times,
        on_perception=spec.on_perception,
        skips=spec.skips,
    )


def canonical_name(text: str) -> str:
    """The one name of an intervention; "none" for none. Raises MuvlaError for any other text."""
    intervention = parse_intervention(text)
    return "none" if intervention is None else intervention.name


def _argument(spec: InterventionKind, text: str | None) -> Any:
    if spec.argument is None and text is None:
        return None
    try:
        if spec.argument is None:
            raise ValueError("no argument")
        return spec.argument(text or "")
    except ValueError as error:
        expected = str(error) if "convert" not in str(error) else "a number"
        raise MuvlaError(
            f"intervention {spec.name}",
            got=f"argument {text!r}",
            expected=expected,
            remedy=f"write for instance {example(spec)}",
        ) from None


def _tokens(spec: InterventionKind, argument: Any, parts: re.Match) -> tuple[int, int] | None:
    """First and stop of `[first:stop]`. Raises MuvlaError where the kind cannot be confined to these tokens."""
    if parts["first"] is None:
        return None
    first, stop = int(parts["first"]), int(parts["stop"])
    alone = spec.needs_two_tokens and argument != spec.identity and stop - first < 2
    problems = (
        (first >= stop, "[first:stop] with first < stop", "name at least one token"),
        (bool(spec.unconfinable), f"no tokens: {spec.unconfinable}", "leave the tokens out"),
        (alone, "at least two tokens: one token has no other order", "name more tokens"),
    )
    for wrong, expected, remedy in problems:
        if wrong:
            raise MuvlaError(
                f"intervention {spec.name}", got=f"tokens [{first}:{stop}]", expected=expected, remedy=remedy
            )
    return first, stop


def _schedule(spec: InterventionKind, text: str | None) -> Schedule | None:
    """None is always. Raises MuvlaError for a schedule that the kind has no use for."""
    schedule = spec.schedule if text is None else parse_schedule(text)
    if spec.needs_lasting_schedule and schedule and schedule.kind == "at":
        raise MuvlaError(
            f"intervention {spec.name}",
            got=f"@{schedule.text}",
            expected="a schedule that lasts, because a lock of one tick changes nothing",
            remedy=f"write @{schedule.text}..",
        )
    if spec.single_event and schedule.kind != "at":
        raise MuvlaError(
            f"intervention {spec.name}",
            got=f"@{schedule.text}",
            expected="one step or event, because its decoder is fitted on the states at one event",
            remedy="write for instance @delay_end",
        )
    return None if schedule == Schedule("from", 0) and spec.schedule is None else schedule


def _name(
    spec: InterventionKind, argument: Any, tokens: tuple[int, int] | None, site: str, schedule: Schedule | None
) -> str:
    shown = repr(argument).removesuffix(".0") if isinstance(argument, float) else argument
    name = spec.name
    if shown not in (None, ""):
        name += f"({shown})"
    if tokens:
        name += f"[{tokens[0]}:{tokens[1]}]"
    if site != spec.site:
        name += f"/{site}"
    if schedule != spec.schedule:
        name += f"@{schedule.text}"
    return name


def example(spec: InterventionKind) -> str:
    """A name of this kind, with an argument that changes the actions where the kind takes an argument."""
    return f"{spec.name}({spec.example})" if spec.example else spec.name
