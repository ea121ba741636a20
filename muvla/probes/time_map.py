"""When does which part of the memory matter: interventions × steps since the cue × blocks of tokens.

Each point acts once, so that the points of one protocol differ in the step alone; draws and donors are the same at all
of them. Points share what is before their step where the environment can be put back (`muvla.evaluation.prefix_cache`).
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
    """Every kind, named without tokens and schedule, at `cue_end + d` for every d in `steps`, on each block of tokens
    (first, stop), None for all of them, beside the plain run. Coordinates: intervention, since_cue, tokens.

    Raises MuvlaError for an unknown kind, one that goes on by itself, one that names tokens or schedule itself, and for
    kinds of several sites: before a step's read and after its write are a tick apart, at one since_cue.
    """
    points = [Point(base, "none", (("intervention", "none"), ("since_cue", d), ("tokens", "all"))) for d in steps]
    sites = {}
    for kind in kinds:
        given = parse_intervention(kind)
        if given is None or given.tokens or "@" in kind or given.name.startswith("freeze"):
            raise MuvlaError(
                "time-map",
                got=kind,
                expected="a kind that acts once, without tokens and schedule",
                remedy="name tokens as blocks, and steps as steps",
            )
        sites[given.site] = kind
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
            got=", ".join(f"{kind} at {site}" for site, kind in sites.items()),
            expected="kinds of one site, so that a step is one time",
            remedy="name the site (kind/site), or make a map each",
        )
    y, curve = ("tokens", "intervention") if len(blocks) > 1 else ("intervention", None)
    at = f", at {next(iter(sites))}" if sites else ""
    notes = f"The memory is changed once{at}, at a step counted from the cue's last one."
    return Grid("time-map", 1, tuple(points), "since_cue", y, curve, notes)
