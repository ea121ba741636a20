"""Counts and latencies of a server, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import numpy as np

REMEMBERED = 2048  # latest values behind a percentile
QUANTILES = (0.5, 0.9, 0.99)


class Metrics:
    """Counters, gauges and summaries. Nothing in it grows with the number of requests."""

    def __init__(self):
        self.requests: Counter[str] = Counter()  # wire → answered requests
        self.refusals: Counter[int] = Counter()  # status → refused requests
        self.duplicates = 0
        self.gaps = 0  # sequence numbers that were left out: dropped frames
        self.ticks = 0  # forward passes
        self.gauges: dict[str, Callable[[], float]] = {}
        self.latency: deque[float] = deque(maxlen=REMEMBERED)  # seconds from arrival to answer
        self.computing: deque[float] = deque(maxlen=REMEMBERED)  # seconds of a forward pass
        self.batches: deque[float] = deque(maxlen=REMEMBERED)  # frames per forward pass

    def text(self) -> str:
        """Return the page `/metrics`."""
        lines = ["# TYPE muvla_requests_total counter"]
        lines += [f'muvla_requests_total{{wire="{wire}"}} {n}' for wire, n in sorted(self.requests.items())]
        lines += ["# TYPE muvla_refusals_total counter"]
        lines += [f'muvla_refusals_total{{status="{status}"}} {n}' for status, n in sorted(self.refusals.items())]
        for name, count in (("duplicates", self.duplicates), ("dropped_frames", self.gaps), ("ticks", self.ticks)):
            lines += [f"# TYPE muvla_{name}_total counter", f"muvla_{name}_total {count}"]
        for name, read in sorted(self.gauges.items()):
            lines += [f"# TYPE muvla_{name} gauge", f"muvla_{name} {read():g}"]
        for name, values in (
            ("latency_seconds", self.latency),
            ("tick_seconds", self.computing),
            ("batch_size", self.batches),
        ):
            lines += [f"# TYPE muvla_{name} summary", *_quantiles(f"muvla_{name}", values)]
        return "\n".join(lines) + "\n"


def _quantiles(name: str, values: deque[float]) -> list[str]:
    if not values:
        return []
    levels = np.quantile(np.array(values), QUANTILES)
    return [f'{name}{{quantile="{q}"}} {value:.6g}' for q, value in zip(QUANTILES, levels, strict=True)]
