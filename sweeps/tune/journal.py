"""The trials as Optuna studies in a journal file, one study per variant, for `optuna-dashboard` and Optuna's plots.

A journal file needs no file locks of the operating system, so it works on network folders. The file is a view of the
rows: what it lacks is added, and a file that disagrees with the rows is written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from muvla.utils.files import disk_errors
from sweeps.tune.samplers import frozen_trial, quiet_optuna
from sweeps.tune.space import Dimension
from sweeps.tune.trials import TrialRow

JOURNAL = "optuna-journal.log"


def write_journal(
    file: Path, study: str, variants: Sequence[str], space: Sequence[Dimension], rows: Sequence[TrialRow]
) -> None:
    """Bring the journal up to date with the rows.

    Args:
        file: the journal.
        study: name of the study; Optuna's studies are called `study/variant`.
        variants: names of all variants.
        space: the tuned fields.
        rows: the trials, by variant and number.
    """
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(file), quiet_optuna():
        try:
            agrees = _add_missing(file, study, variants, space, rows)
        except (ValueError, KeyError):  # a file that is no journal
            agrees = False
        if not agrees:
            file.unlink()
            _add_missing(file, study, variants, space, rows)


def _add_missing(
    file: Path, study: str, variants: Sequence[str], space: Sequence[Dimension], rows: Sequence[TrialRow]
) -> bool:
    """Adds the trials that the journal lacks. Returns False for a journal that disagrees with the rows."""
    storage = JournalStorage(JournalFileBackend(str(file)))
    for variant in variants:
        trials = [frozen_trial(space, row) for row in rows if row.variant == variant]
        view = optuna.create_study(
            storage=storage, study_name=f"{study}/{variant}", direction="maximize", load_if_exists=True
        )
        there = view.get_trials(deepcopy=False)
        if [_facts(trial) for trial in there] != [_facts(trial) for trial in trials[: len(there)]]:
            return False
        view.add_trials(trials[len(there) :])
    return True


def _facts(trial: FrozenTrial) -> tuple:
    return trial.state, trial.value, trial.params, trial.intermediate_values, trial.user_attrs
