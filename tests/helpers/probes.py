"""The registered probes, by what they are."""

from muvla.probes.base import Measurement
from muvla.probes.registry import load_probe, probe_names

# A memory for the measurements that need entries with times.
BANK = {"memory.kind": "bank", "memory.perceptual_width": 8, "memory.capacity": 4}
MEASUREMENTS = [name for name in probe_names() if isinstance(load_probe(name), Measurement)]
GRIDS = [name for name in probe_names() if name not in MEASUREMENTS]
