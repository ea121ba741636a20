"""The weights that the trainings of a study store for its time to learn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muvla.config import Cell
from muvla.errors import MuvlaError
from muvla.runs.status import updates_done
from muvla.training.options import TrainingOptions
from sweeps.ledger import Entry
from sweeps.study import Study


def storing(options: TrainingOptions, study: Study, cell: Cell) -> TrainingOptions:
    """The options of a cell's training: it stores the weights that the study evaluates."""
    if study.time_to_learn is None:
        return options
    return replace(options, weights_at=study.time_to_learn.updates_of(cell))


def require_weights(entries: Iterable[Entry]) -> None:
    """Raises MuvlaError for a cell whose training has passed a declared update without storing its weights.

    Such a cell was trained before its study declared the update.
    """
    for entry in entries:
        if entry.study.time_to_learn is None or not entry.run.is_created:
            continue
        trained = updates_done(entry.run)
        for protocol, _ in entry.missing():
            update = protocol.update
            if update is not None and update <= trained and not entry.run.weights(update).exists():
                raise MuvlaError(
                    f"study {entry.study.name}, time_to_learn.updates",
                    got=f"{update}; {entry.item.label} was trained to update {trained} and stored no weights there",
                    expected="updates whose weights the trainings have stored, or have still to reach",
                    remedy="train the cells in another folder, `muvla sweep STUDY --runs FOLDER`, or take the update "
                    "out of the study",
                )
