"""The cost of the cells of a study: hours, memory and disk, by finished cells or by a short calibration run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muvla.data.store import EpisodeStore
from muvla.interventions import parse_intervention
from muvla.runs.status import updates_done
from muvla.training.trainer import Trainer
from muvla.utils.io import read_lines
from sweeps.ledger import Entry

ENDED = ("done", "failed", "not a measurement", "damaged")
UPDATES = 3  # updates of a calibration, after a first update that warms up
WEIGHT_BYTES = 4  # of stored weights per parameter: the value in float32
BYTES = 3 * WEIGHT_BYTES  # of a checkpoint per parameter: the value and two moments
FINISHED, CALIBRATED = "finished cells", "a calibration of training alone"


@dataclass(frozen=True)
class Cost:
    """Cost of one cell.

    Attributes:
        seconds: of one process on one core or one GPU.
        memory: peak memory in bytes; 0 where it is not known.
        disk: bytes of the run folder.
        frames: training frames that the cost belongs to.
        source: `finished cells` or `a calibration of training alone`.
    """

    seconds: float
    memory: float
    disk: float
    frames: int
    source: str = FINISHED


@dataclass(frozen=True)
class Estimate:
    """Cost of the cells that are left.

    Attributes:
        cells: number of cells that are left.
        unknown: number of them without an estimate.
        hours: hours of one process.
        memory: peak memory of the largest cell, bytes.
        disk: bytes that the cells will add.
        used: bytes of the run folders so far.
        sources: where the numbers come from.
    """

    cells: int
    unknown: int
    hours: float
    memory: float
    disk: float
    used: int
    sources: tuple[str, ...]

    def line(self, processes: int = 1) -> str:
        """One sentence for people.

        Args:
            processes: cells that run at once.
        """
        used = f"run folders hold {_size(self.used)}"
        if not self.cells:
            return f"No cell is left; {used}."
        if not self.sources:
            return f"{self.cells} cells are left; no cell has finished yet, so their time is not known; {used}."
        memory = f", at most {_size(self.memory)} memory each" if self.memory else ""
        text = f"{self.cells} cells are left: about {self.hours:.1f} core- or GPU-hours"
        wall = f" ({self.hours / processes:.1f} h with {processes} at once)" if processes > 1 else ""
        unknown = f", without {self.unknown} cells of unknown cost" if self.unknown else ""
        return f"{text}{wall}{memory}, {_size(self.disk)} more disk{unknown}; by {' and '.join(self.sources)}; {used}."


def finished_costs(entries: Sequence[Entry], states: Sequence[str]) -> dict[str, Cost]:
    """Variant → mean cost of its finished cells; `""` → mean of all.

    Args:
        entries: the cells.
        states: their states.
    """
    costs: dict[str, list[Cost]] = {}
    for entry, state in zip(entries, states, strict=True):
        seconds = sum(entry.run.seconds().values()) if state == "done" else 0.0
        if seconds:
            frames = entry.item.cell.effective_budget.total_frames
            cost = Cost(seconds, _peak(entry), folder_size(entry), frames)
            costs.setdefault(entry.item.variant, []).append(cost)
            costs.setdefault("", []).append(cost)
    return {variant: _mean(of_variant) for variant, of_variant in costs.items()}


def estimate(entries: Sequence[Entry], states: Sequence[str], costs: Mapping[str, Cost]) -> Estimate:
    """The cost of the cells that are left, in proportion to their training frames.

    Args:
        entries: the cells.
        states: their states.
        costs: variant → cost of one of its cells; `""` → cost of any other cell.
    """
    hours = memory = disk = 0.0
    unknown, sources, used, left = 0, [], 0, 0
    for entry, state in zip(entries, states, strict=True):
        there = folder_size(entry) if state != "planned" else 0
        used += there
        if state in ENDED:
            continue
        left += 1
        cost = costs.get(entry.item.variant) or costs.get("")
        if cost is None:
            unknown += 1
            continue
        budget = entry.item.cell.effective_budget
        share = 1.0 if state == "planned" else 1 - updates_done(entry.run) / budget.updates
        hours += cost.seconds * budget.total_frames / cost.frames * share / 3600
        memory, disk = max(memory, cost.memory), disk + max(0.0, cost.disk - there)
        sources.append(cost.source)
    return Estimate(left, unknown, hours, memory, disk, used, tuple(dict.fromkeys(sources)))


def calibrate(entry: Entry, store: EpisodeStore, device: str) -> Cost:
    """Trains a few updates of a cell in this process, without a run folder.

    Args:
        entry: the cell.
        store: its data.
        device: torch device.
    """
    cell = entry.item.cell
    trainer = Trainer(cell, store, parse_intervention(cell.intervention), device)
    with trainer.prefetcher:
        trainer.step()
        started = time.monotonic()
        for _ in range(UPDATES):
            trainer.step()
    each, budget = (time.monotonic() - started) / UPDATES, cell.effective_budget
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    parameters = sum(parameter.numel() for parameter in trainer.policy.parameters())
    learning = entry.study.time_to_learn
    stored = 0 if learning is None else len(learning.updates_of(cell))
    disk = (BYTES + WEIGHT_BYTES * stored) * parameters
    return Cost(each * budget.updates, memory, disk, budget.total_frames, CALIBRATED)


def folder_size(entry: Entry) -> int:
    """Bytes of a run folder."""
    return sum(path.stat().st_size for path in entry.run.folder.rglob("*") if path.is_file())


def _peak(entry: Entry) -> float:
    """Peak memory of the training in bytes; 0 where the log lacks it."""
    rows = read_lines(entry.run.folder / "train.jsonl")
    return max((row.get("peak_memory_mb", 0) for row in rows), default=0) * 1e6


def _mean(costs: Sequence[Cost]) -> Cost:
    n = len(costs)
    return Cost(
        sum(cost.seconds for cost in costs) / n,
        max(cost.memory for cost in costs),
        sum(cost.disk for cost in costs) / n,
        round(sum(cost.frames for cost in costs) / n),
    )


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "KB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
