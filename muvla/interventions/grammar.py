"""The text that names an intervention, and is its identity: `KIND[(ARGUMENT)][TOKENS][/SITE][@SCHEDULE]`.

    zero                        at every tick, at the kind's own site
    noise_relative(0.5)@3       with an argument, once
    zero[0:2]/read@cue_end..    the tokens 0 and 1 alone, as they are read, from the cue's last step on

Equal interventions have one name: what is a kind's default is left out of it.
"""

from __future__ import annotations

import re

from muvla.errors import MuvlaError
from muvla.interventions.base import Intervention
from muvla.interventions.kinds import IDENTITY, INTERVENTIONS, Kind
from muvla.interventions.schedule import Schedule, parse_schedule

FORM = "KIND[(ARGUMENT)][TOKENS][/SITE][@SCHEDULE]"
_FORM = re.compile(
    r"(?P<kind>\w+)(?:\((?P<argument>[^()]*)\))?(?:\[(?P<first>\d+):(?P<stop>\d+)\])?(?:/(?P<site>\w+))?"
    r"(?:@(?P<schedule>.+))?"
)


def parse_intervention(text: str | None) -> Intervention | None:
    """By name; None and "none" are no intervention. Raises MuvlaError, which tells the part that is wrong."""
    if text in (None, "none"):
        return None
    parts = _FORM.fullmatch(text)
    if parts is None or parts["kind"] not in INTERVENTIONS:
        raise MuvlaError(
            "intervention",
            got=text,
            expected=f"none or {FORM} with KIND one of {', '.join(INTERVENTIONS)}",
            remedy="correct the name",
        )
    kind = INTERVENTIONS[parts["kind"]]
    argument = _argument(kind, parts["argument"])
    tokens = None if parts["first"] is None else (int(parts["first"]), int(parts["stop"]))
    if tokens and tokens[0] >= tokens[1]:
        raise MuvlaError(
            f"intervention {text}",
            got=f"tokens [{tokens[0]}:{tokens[1]}]",
            expected="[first:stop] with first < stop",
            remedy="name at least one token",
        )
    _require_confinable(kind, argument, tokens)
    site = parts["site"] or kind.site
    if site not in kind.sites:
        raise MuvlaError(
            f"intervention {text}", got=f"site {site}", expected=f"one of {', '.join(kind.sites)}", remedy="correct it"
        )
    when = _schedule(kind, parts["schedule"])
    return Intervention(
        _name(kind, argument, tokens, site, when),
        site,
        kind.function,
        kind.effect,
        when,
        tokens,
        argument,
        kind.removes,
        kind.donor,
    )


def canonical_name(text: str) -> str:
    """The one name of an intervention, "none" of none. Raises MuvlaError for what is none."""
    kind = parse_intervention(text)
    return "none" if kind is None else kind.name


def _argument(kind: Kind, text: str | None):
    if kind.argument is None and text is None:
        return None
    try:
        if kind.argument is None:
            raise ValueError("no argument")
        return kind.argument(text or "")
    except ValueError as error:
        expected = str(error) if "convert" not in str(error) else "a number"
        raise MuvlaError(
            f"intervention {kind.name}",
            got=f"argument {text!r}",
            expected=expected,
            remedy=f"for instance {example(kind)}",
        ) from None


def _require_confinable(kind: Kind, argument, tokens: tuple[int, int] | None) -> None:
    """Raises MuvlaError for tokens that the kind, with this argument, cannot be confined to."""
    alone = kind.function is INTERVENTIONS["permute_tokens"].function and argument != IDENTITY
    if tokens and (kind.whole or (alone and tokens[1] - tokens[0] < 2)):
        raise MuvlaError(
            f"intervention {kind.name}",
            got="tokens [{}:{}]".format(*tokens),
            expected=f"no tokens: {kind.whole}" if kind.whole else "two tokens at least: one has no other order",
            remedy="leave them out" if kind.whole else "name more of them",
        )


def _schedule(kind: Kind, text: str | None) -> Schedule | None:
    """None is always. Raises MuvlaError for one that the kind has no use for."""
    when = kind.schedule if text is None else parse_schedule(text)
    if kind.function is INTERVENTIONS["freeze"].function and when and when.kind == "at":
        raise MuvlaError(
            f"intervention {kind.name}",
            got=f"@{when.text}",
            expected=f"a schedule that goes on, as @{when.text}..",
            remedy="what is locked for one tick stays what it is",
        )
    if kind.donor in ("direction", "orthogonal") and when.kind != "at":
        raise MuvlaError(
            f"intervention {kind.name}",
            got=f"@{when.text}",
            expected="one step or event, as @delay_end",
            remedy="its decoder is fitted on the states at one event",
        )
    return None if when == Schedule("from", 0) and kind.schedule is None else when


def _name(kind: Kind, argument, tokens: tuple[int, int] | None, site: str, when: Schedule | None) -> str:
    shown = repr(argument).removesuffix(".0") if isinstance(argument, float) else argument
    return "".join(
        (
            kind.name,
            "" if shown in (None, "") else f"({shown})",
            f"[{tokens[0]}:{tokens[1]}]" if tokens else "",
            "" if site == kind.site else f"/{site}",
            "" if when == kind.schedule else f"@{when.text}",
        )
    )


def example(kind: Kind) -> str:
    """A name of this kind, with an argument that bites where it takes one."""
    return f"{kind.name}({kind.example})" if kind.example else kind.name
