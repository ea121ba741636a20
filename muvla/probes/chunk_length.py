"""How much memory a policy needs that acts in chunks: h actions executed per query, memory as it is, and taken away.

A chunk that is issued while the cue is shown still acts when the choice is made: the longer it is, the less is to be
remembered. So there is no chance line for h > 1.
"""

from __future__ import annotations

from muvla.evaluation.protocol import Beyond, Protocol, Tick
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derived

VERSION = 2
OF_PROTOCOLS = 1  # the version of what the points are derived to, whose rows do not depend on what points are called
LENGTHS = (1, 2, 4, 8, 16)  # as published (μVLA spec 7)
# Intervention → what it makes of the memory, in words.
MEMORIES = {"none": "active", "zero": "zeroed", "drop": "removed", "empty": "empty"}


def chunk_lengths(
    base: Protocol,
    hs: tuple[int, ...] = LENGTHS,
    memories: tuple[str, ...] = tuple(MEMORIES),
    tick: Tick = "call",
    beyond: Beyond = "hold_last",
) -> Grid:
    """A point per h and intervention. `tick` is when memory is read and written where h > 1. `beyond` is what an h past
    the policy's own chunk H does: its last action is executed again, or it is refused, for cells trained with a longer
    one. The published sweep does not tell how its h = 16 came out of a head with H = 8.

    h = 1 is `receding`, whatever these two are: its coordinates are what every such protocol has, a tick at every
    `env_step` and `refuse`, as no chunk runs out."""
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
        return derived(
            base, "h1", OF_PROTOCOLS, {"regime": "receding", "h": 1, "tick": Protocol.tick, "beyond": Protocol.beyond}
        )
    what = f"h{h}-{tick.replace('_', '-')}{'-hold' if beyond == 'hold_last' else ''}"
    return derived(base, what, OF_PROTOCOLS, {"regime": "open_loop", "h": h, "tick": tick, "beyond": beyond})
