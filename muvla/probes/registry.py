"""Probes by name, for the command line and for studies.

A probe is one line in PROBES, or an entry point of the group `muvla.probes` in an installed package: a name, and the
module and attribute of a `Measurement`, or of a function from a protocol to a `Grid`. A probe is imported when it is
asked for, because a measurement may need pandas and scikit-learn.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points

from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Measurement

GROUP = "muvla.probes"  # of entry points
PROBES: dict[str, str] = {
    "dynamics": "muvla.probes.dynamics:DYNAMICS",
    "decoders": "muvla.probes.linear_probes:DECODERS",
    "attention": "muvla.probes.attention:ATTENTION",
    "gradients": "muvla.probes.jacobians:GRADIENTS",
    "phase-length": "muvla.probes.phase_length:phase_lengths",
    "chunk-length": "muvla.probes.chunk_length:chunk_lengths",
    "palette": "muvla.probes.palette:palettes",
    "shift": "muvla.probes.visual_shift:shifts",
    "time-map": "muvla.probes.time_map:time_map",
}
LISTED_BY = "muvla ls probes"


def probe_names() -> list[str]:
    """Return the names of all probes, those of installed packages included."""
    return sorted(_import_strings())


def load_probe(name: str) -> Measurement | Callable[..., Grid]:
    """Import a probe by name: a measurement, or the function that builds a grid.

    A name may end in "@version"; the version is not compared. Raises MuvlaError for an unknown name.
    """
    by_name = _import_strings()
    name = name.partition("@")[0]
    if name not in by_name:
        raise unknown_name("probe", name, by_name, LISTED_BY)
    module, _, attribute = by_name[name].partition(":")
    probe = getattr(importlib.import_module(module), attribute)
    if not isinstance(probe, Measurement) and not callable(probe):
        raise MuvlaError(
            f"probe {name}",
            got=f"{by_name[name]}, a {type(probe).__name__}",
            expected="a Measurement, or a function from a protocol to a Grid",
            remedy="name such an attribute in the entry point",
        )
    return probe


def get_measurement(name: str) -> Measurement:
    """Return a measurement. Raises MuvlaError for an unknown name, and for the name of a grid."""
    probe = load_probe(name)
    if not isinstance(probe, Measurement):
        raise MuvlaError(
            "probe", got=f"{name}, a grid", expected="a measurement", remedy="use get_grid(name)(protocol)"
        )
    return probe


def get_grid(name: str) -> Callable[..., Grid]:
    """Return the function that builds a grid: `get_grid("phase-length")(protocol)`.

    Raises MuvlaError for an unknown name, and for the name of a measurement.
    """
    probe = load_probe(name)
    if isinstance(probe, Measurement):
        raise MuvlaError("probe", got=f"{name}, a measurement", expected="a grid", remedy="use get_measurement(name)")
    return probe


def get_probe(name: str, base: Protocol) -> Grid | Measurement:
    """Return the measurement of this name, or the grid that starts from `base`.

    Raises MuvlaError for an unknown name.
    """
    probe = load_probe(name)
    return probe if isinstance(probe, Measurement) else probe(base)


def _import_strings() -> dict[str, str]:
    """Return name → "module:attribute". Raises MuvlaError if two probes have one name."""
    by_name = dict(PROBES)
    for entry in entry_points(group=GROUP):
        if by_name.get(entry.name, entry.value) != entry.value:
            raise MuvlaError(
                f"entry point {GROUP}",
                got=f"{entry.name} = {entry.value}",
                expected=f"a name besides {entry.name} = {by_name[entry.name]}",
                remedy="rename the probe in its package, or uninstall the package",
            )
        by_name[entry.name] = entry.value
    return by_name
