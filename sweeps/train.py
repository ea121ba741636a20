"""Train the cells of a study one after the other, in this process or in the ranks of a torchrun launch."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

from muvla.errors import MuvlaError
from muvla.runs.train import train_cell
from muvla.training.distributed.base import Ranks
from muvla.training.one_pass import require_one_pass
from muvla.training.options import TrainingOptions
from muvla.training.run import Progress
from muvla.training.vision_cache import require_cacheable
from sweeps.ledger import Entry, Ledger
from sweeps.stored_weights import require_weights, storing
from sweeps.study import Study


def train_study(
    study: Study, ledger: Ledger, device: str, options: TrainingOptions, ranks: Ranks, stop: Callable[[], bool]
) -> list[Entry]:
    """Train every cell of the study; a finished training is skipped. Return the cells' entries.

    Args:
        study: the study, narrowed to the wanted variants and seeds.
        ledger: run folders and datasets; missing demonstrations are collected.
        device: torch device.
        options: how to compute; no option changes a train id.
        ranks: processes of this training.
        stop: asked after every update.

    Raises:
        MuvlaError: a cell is marked as failed; the cells after it are not trained.
        Interrupted: `stop` returned True; a fresh checkpoint is on disk.
    """
    if ranks.size > 1 and ":" in device:
        raise MuvlaError("--device", got=device, expected="auto, cpu or cuda", remedy="every rank takes its own GPU")
    if options.cached_vision:  # before any cell is marked
        for item in study.cells():
            require_cacheable(item.cell, ranks.size)
    if options.one_pass:
        for item in study.cells():
            require_one_pass(item.cell, ranks.size)
    ranks.on_main(lambda: ledger.stores(study) and None, long_running=True)
    with ranks.raise_together():
        stores = ledger.opened(study)
    entries = ledger.entries(study, stores)
    ranks.on_main(lambda: require_weights(entries))
    for entry in entries:
        how = storing(options, study, entry.item.cell)
        _train_entry(entry, stores[entry.item.variant], device, how, ranks, stop)
    return entries


def _train_entry(entry: Entry, store, device: str, options: TrainingOptions, ranks: Ranks, stop) -> None:
    if failure := ranks.on_main(lambda: entry.run.failure):
        raise MuvlaError(
            entry.item.label,
            got=f"a cell marked {failure['kind']!r}",
            expected="a cell without a mark",
            remedy=entry.run.failure_remedy,
        )
    hidden = not (ranks.is_main and sys.stderr.isatty())
    with tqdm(unit="update", disable=hidden, dynamic_ncols=True, desc=entry.item.label) as bar:

        def progress(p: Progress) -> None:
            bar.total, bar.n = p.updates, p.update
            bar.set_postfix_str(f"loss {p.loss:.4f}, {p.frames_per_second:.0f} frames/s")

        with entry.run.working(ranks=ranks):
            train_cell(entry.run, entry.item.cell, store, device, progress, stop, options, ranks)
    if ranks.is_main:
        print(f"{entry.item.label}: trained, {entry.run.folder}")
