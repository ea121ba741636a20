"""The recipes of a tuning's trials, in batches.

- `sobol` draws N points of a scrambled Sobol sequence. All variants get the same points.
- `grid` takes every combination of choices. All variants get the same points.
- `tpe` asks Optuna's tree-structured Parzen estimator, for each variant by itself. A batch is asked before any of its
  trials runs, and depends on the finished batches alone. The order in which trials end therefore changes nothing.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import qmc

from muvla.errors import MuvlaError
from muvla.utils.rng import key, numpy_rng
from sweeps.tune.space import Dimension, Recipe
from sweeps.tune.trials import COMPLETE, FAILED, PRUNED, TrialRow

SAMPLERS = ("sobol", "grid", "tpe")
STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}


def sobol_points(space: Sequence[Dimension], trials: int, seed: int) -> list[Recipe]:
    """The first points of a scrambled Sobol sequence. More trials continue the same sequence."""
    sequence = qmc.Sobol(len(space), scramble=True, rng=numpy_rng(seed, "tune sobol"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the balance of a power of two is not needed
        shares = sequence.random(trials)
    return [{d.name: d.at(float(share)) for d, share in zip(space, row, strict=True)} for row in shares]


def grid_points(space: Sequence[Dimension]) -> list[Recipe]:
    """Every combination of choices; the last field changes fastest. Raises MuvlaError for a range."""
    for dimension in space:
        if dimension.choices is None:
            raise MuvlaError(
                f"--over {dimension.name}",
                got="a range",
                expected="a list of choices with --sampler grid",
                remedy="list the values, for example optimizer.lr=1e-4,1e-3, or take --sampler sobol",
            )
    names = [dimension.name for dimension in space]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(d.choices for d in space))]


def ask_tpe(
    space: Sequence[Dimension], finished: Iterable[TrialRow], count: int, seed: int, variant: str
) -> list[Recipe]:
    """The next batch of one variant.

    Args:
        space: the dimensions.
        finished: rows of all batches before this batch, of this variant.
        count: trials of the batch.
        seed: seed of the tuning.
        variant: name of the variant, which keys the draws.
    """
    history = [frozen_trial(space, row) for row in finished]
    with quiet_optuna():
        sampler = optuna.samplers.TPESampler(
            seed=key(seed, "tune tpe", variant, len(history)) % 2**32, constant_liar=True, n_startup_trials=count
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(history)
        distributions = {dimension.name: dimension.distribution for dimension in space}
        asked = [study.ask(distributions) for _ in range(count)]
    return [{d.name: d.rounded(trial.params[d.name]) for d in space} for trial in asked]


def frozen_trial(space: Sequence[Dimension], row: TrialRow) -> FrozenTrial:
    """A row as Optuna's trial. A pruned trial has its last training loss, negative, as intermediate value."""
    trial = create_trial(
        state=STATES[row.outcome],
        value=row.mean if row.outcome == COMPLETE else None,
        params=dict(row.recipe),
        distributions={dimension.name: dimension.distribution for dimension in space},
        intermediate_values={step: -loss for step, loss in row.losses.items() if math.isfinite(loss)},
        user_attrs={
            "variant": row.variant,
            "trial": row.number,
            "success": {str(seed): rate for seed, rate in row.success.items()},
            "frames": row.frames,
            "train ids": list(row.train),
        },
    )
    trial.number = row.number
    return trial


def quiet_optuna() -> warnings.catch_warnings:
    """Silences Optuna's log lines for good, and its notes on experimental arguments inside the block."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore")
