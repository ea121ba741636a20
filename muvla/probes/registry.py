"""Probes by name, for the command line and for studies.

A probe is one line in PROBES, or an entry point of the group `muvla.probes` in an installed package: a name, and the
module and attribute of a `Measurement`, or of a function from a protocol to a `Grid`. A probe is imported when it is
asked for, because a measurement may need pandas and scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Measurement
from muvla.utils.registry import Registry

PROBES = Registry(
    "muvla.probes",
    {
        "dynamics": "muvla.probes.dynamics:DYNAMICS",
        "decoders": "muvla.probes.linear_probes:DECODERS",
        "retention": "muvla.probes.retention:RETENTION",
        "attention": "muvla.probes.attention:ATTENTION",
        "gradients": "muvla.probes.jacobians:GRADIENTS",
        "retrieval": "muvla.probes.retrieval:RETRIEVAL",
        "phase-length": "muvla.probes.phase_length:phase_lengths",
        "delay-length": "muvla.probes.phase_length:delay_lengths",
        "chunk-length": "muvla.probes.chunk_length:chunk_lengths",
        "palette": "muvla.probes.palette:palettes",
        "shift": "muvla.probes.visual_shift:shifts",
        "time-map": "muvla.probes.time_map:time_map",
    },
    "probe",
    "muvla ls probes",
)


def probe_names() -> list[str]:
    """Return the names of all probes, those of installed packages included."""
    return sorted(PROBES.names())


def load_probe(name: str) -> Measurement | Callable[..., Grid]:
    """Import a probe by name: a measurement, or the function that builds a grid.

    A name may end in "@version"; the version is not compared. Raises MuvlaError for an unknown name.
    """
    name = name.partition("@")[0]
    probe = PROBES.load(name)
    if not isinstance(probe, Measurement) and not callable(probe):
        raise MuvlaError(
            f"probe {name}",
            got=f"{PROBES.places()[name]}, a {type(probe).__name__}",
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
