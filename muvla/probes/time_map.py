"""When does which part of the memory matter: interventions × steps since the cue × blocks of tokens.

Each point acts once, so that the points of one protocol differ in the step alone. All points have the same draws and
donors. Where the environment can be restored, points share the steps before they act (`muvla.evaluation.prefix_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.interventions import parse_intervention
from muvla.probes.base import Grid, Point


def time_map(
    base: Protocol,
    kinds: Sequence[str] = ("zero", "noise_matched"),
    steps: Sequence[int] = range(6),
    blocks: Sequence[tuple[int, int] | None] = (None,),
) -> Grid:
    """Evaluations with an intervention at a single step since the cue, on a block of tokens.

    The grid has a point per intervention, step and block, beside the run without an intervention.

    Coordinates: intervention, since_cue, tokens.

    Args:
        base: the protocol to start from.
        kinds: interventions that act once, named without tokens and schedule, and of one site. Two sites at one
            since_cue would be a tick apart: one before the read, the other after the write.
        steps: d, for the schedule `cue_end + d`.
        blocks: (first, stop) tokens; None for all.

    Raises:
        MuvlaError: an intervention is unknown or not as above.
    """
    points = [Point(base, "none", (("intervention", "none"), ("since_cue", d), ("tokens", "all"))) for d in steps]
    sites = {}
    for text in kinds:
        given = parse_intervention(text)
        if given is None or given.tokens or "@" in text or given.locks:
            raise MuvlaError(
                "time-map",
                got=text,
                expected="an intervention that acts once, without tokens and schedule",
                remedy="give tokens as blocks, and steps as steps",
            )
        sites[given.site] = text
        for first_stop in blocks:
            tokens = "" if first_stop is None else "[{}:{}]".format(*first_stop)
            for d in steps:
                named, _, site = given.name.partition("/")
                name = f"{named}{tokens}{'/' + site if site else ''}@cue_end{f'{d:+d}' if d else ''}"
                where = (("intervention", given.name), ("since_cue", d), ("tokens", tokens or "all"))
                points.append(Point(base, parse_intervention(name).name, where))
    if len(sites) > 1:
        raise MuvlaError(
            "time-map",
            got=", ".join(f"{name} at {site}" for site, name in sites.items()),
            expected="interventions of one site, so that a step is one moment",
            remedy="name one site for all (zero/before_read), or make a map per site",
        )
    y, curve = ("tokens", "intervention") if len(blocks) > 1 else ("intervention", None)
    at = f", at {next(iter(sites))}" if sites else ""
    notes = f"The memory is changed once{at}, at a step counted from the cue's last one."
    return Grid("time-map", 1, tuple(points), "since_cue", y, curve, notes)
