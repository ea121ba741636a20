"""How much memory a policy needs that acts in chunks: h actions per query, with the memory as it is and without.

A chunk that the policy issues during the cue still acts at the choice: a longer chunk leaves less to remember. So there
is no chance line for h > 1.
"""

from __future__ import annotations

from muvla.evaluation.protocol import Beyond, Protocol, Tick
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derive_protocol

VERSION = 2
PROTOCOL_VERSION = (
    1  # the version of what the points are derive_protocol to, whose rows do not depend on what points are called
)
LENGTHS = (1, 2, 4, 8, 16)  # as published (μVLA spec 7)
# Intervention → the memory under it, in words.
MEMORIES = {"none": "active", "zero": "zeroed", "drop": "removed", "empty": "empty"}


def chunk_lengths(
    base: Protocol,
    hs: tuple[int, ...] = LENGTHS,
    memories: tuple[str, ...] = tuple(MEMORIES),
    tick: Tick = "call",
    beyond: Beyond = "hold_last",
) -> Grid:
    """Evaluations with h actions per query, with the memory and without.

    The grid has a point per h and intervention.

    h = 1 is `receding`, whatever `tick` and `beyond` are: its points have the coordinates `env_step` and `refuse`,
    because no chunk runs out.

    Args:
        base: the protocol to start from.
        hs: actions executed per query.
        memories: interventions, by canonical name.
        tick: when memory is read and written, for h > 1.
        beyond: for an h past the policy's chunk H: execute the last action again (`hold_last`), or refuse it. The
            published sweep does not say how its h = 16 came out of a head with H = 8.
    """
    points = []
    for h in hs:
        protocol = _executing(base, h, tick, beyond)
        for name in memories:
            where = (("tick", protocol.tick), ("beyond", protocol.beyond))
            points.append(Point(protocol, name, (("h", h), ("memory", MEMORIES.get(name, name)), *where)))
    when = "at every query" if tick == "call" else "at every environment step"
    past = "the chunk's last action is held" if beyond == "hold_last" else "refused"
    return Grid(
        "chunk-length",
        VERSION,
        tuple(points),
        x="h",
        curve="memory",
        notes=f"h actions per query; memory is read and written {when}. An h past the cell's chunk H: {past}.",
    )


def _executing(base: Protocol, h: int, tick: Tick, beyond: Beyond) -> Protocol:
    if h == 1:
        return derive_protocol(
            base,
            "h1",
            PROTOCOL_VERSION,
            {"regime": "receding", "h": 1, "tick": Protocol.tick, "beyond": Protocol.beyond},
        )
    what = f"h{h}-{tick.replace('_', '-')}{'-hold' if beyond == 'hold_last' else ''}"
    return derive_protocol(
        base, what, PROTOCOL_VERSION, {"regime": "open_loop", "h": h, "tick": tick, "beyond": beyond}
    )
