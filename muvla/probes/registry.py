"""The probes by name, for the command line and for studies.

A reading is one line here: its name and where it stands. It is imported when it is asked for, because it may need
pandas and scikit-learn, which a sweep without it does not pay for."""

from __future__ import annotations

import importlib

from muvla.errors import MuvlaError
from muvla.probes.base import Reading

# Name → module and name of the Reading in it.
READINGS: dict[str, str] = {
    "dynamics": "muvla.probes.dynamics:DYNAMICS",
    "decoders": "muvla.probes.decoders:DECODERS",
}


def reading(name: str) -> Reading:
    """Raises MuvlaError for an unknown one."""
    name = name.partition("@")[0]
    if name not in READINGS:
        raise MuvlaError("probe", got=name, expected=f"one of {', '.join(READINGS)}", remedy="correct the name")
    module, _, attribute = READINGS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
