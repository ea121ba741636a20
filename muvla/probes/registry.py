"""The probes by name, for the command line and for studies.

A probe is one line here: its name, and the module and name of what makes it. It is imported when it is asked for,
because a reading may need pandas and scikit-learn, for which nothing else pays.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Measurement

# Of a `Measurement`.
MEASUREMENTS: dict[str, str] = {
    "dynamics": "muvla.probes.dynamics:DYNAMICS",
    "decoders": "muvla.probes.linear_probes:DECODERS",
    "attention": "muvla.probes.attention:READING",
    "gradients": "muvla.probes.jacobians:READING",
}

# Of a function from the protocol that the grid starts from, all else by default, to a `Grid`.
GRIDS: dict[str, str] = {
    "phase-length": "muvla.probes.phase_length:phase_lengths",
    "chunk-length": "muvla.probes.chunk_length:chunk_lengths",
    "palette": "muvla.probes.palette:palettes",
    "shift": "muvla.probes.visual_shift:shifts",
    "time-map": "muvla.probes.time_map:time_map",
}


def get_measurement(name: str) -> Measurement:
    """Raises MuvlaError for an unknown one."""
    return _found(MEASUREMENTS, name)


def get_grid(name: str) -> Callable[..., Grid]:
    """The function of this name: `get_grid("phase-length")(protocol)`. Raises MuvlaError for an unknown one."""
    return _found(GRIDS, name)


def get_probe(name: str, base: Protocol) -> Grid | Measurement:
    """A reading, or a grid from this protocol. Raises MuvlaError for an unknown one."""
    return get_grid(name)(base) if name.partition("@")[0] in GRIDS else _found(MEASUREMENTS, name, GRIDS)


def _found(places: dict[str, str], name: str, others: Iterable[str] = ()) -> Any:
    name = name.partition("@")[0]
    if name not in places:
        known = ", ".join([*places, *others])
        raise MuvlaError("probe", got=name, expected=f"one of {known}", remedy="correct the name")
    module, _, attribute = places[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
