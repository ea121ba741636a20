"""Search the study's recipe with Optuna, for K=8 with executed labels alone.

    python -m experiments.recall_quick.search

The search uses training seeds 100-104 and the protocol `recall-position3-search@1`, which no result uses. Every trial
becomes a line of search.csv: the recipe, each seed's success rate, and how many seeds reached the target. A rerun
continues the search, and replaces a recipe's line only after the recipe's new trial.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import optuna
import pandas as pd

from analysis.report.markers import write_between_markers
from analysis.tables import to_markdown
from experiments.recall_quick.study import study
from muvla.evaluation.catalog import get_protocol
from muvla.utils.io import write_atomically
from sweeps.ledger import Ledger
from sweeps.sweep import SweepOptions, default_processes, run_study

SEEDS = (100, 101, 102, 103, 104)
PROTOCOL = get_protocol("recall-position3-search@1")
TARGET = 0.9
SPACE = {
    "optimizer.lr": [2.5e-4, 5e-4, 1e-3, 2e-3],
    "budget.slots": [8, 16],
    "budget.updates": [400, 600],
}
HERE = Path(__file__).parent


def main(root: Path = Path("runs")) -> None:
    before = pd.read_csv(HERE / "search.csv").to_dict("records") if (HERE / "search.csv").exists() else []
    lines = {_recipe(line): line for line in before}
    sampler = optuna.samplers.GridSampler(SPACE, seed=0)
    trials = optuna.create_study(direction="maximize", sampler=sampler, study_name="recall_quick")
    trials.optimize(lambda trial: _trial(trial, lines, root), n_trials=None)
    print(f"best: {trials.best_params}, {trials.best_value:.3f}")


def _recipe(line: dict) -> tuple[float, ...]:
    return tuple(float(line[name]) for name in SPACE)


def _trial(trial: optuna.Trial, lines: dict[tuple[float, ...], dict], root: Path) -> float:
    """Return the mean success over the seeds. The ledger holds the cells, so a repeated trial trains nothing."""
    recipe = {name: trial.suggest_categorical(name, values) for name, values in SPACE.items()}
    cells = dataclasses.replace(
        study,
        name="recall_quick_search",
        variants={"K=8": recipe},
        factors=tuple(SPACE),
        seeds=SEEDS,
        protocols=(PROTOCOL,),
        interventions=(),
    )
    started = time.monotonic()
    options = SweepOptions(processes=default_processes("cpu"), track=False)
    result = run_study(cells, Ledger(root, root.parent / "data"), options)
    rates = [entry.summaries()[PROTOCOL.id, "none"].success_rate for entry in result.entries if entry.state == "done"]
    if len(rates) != len(SEEDS):
        raise SystemExit("a cell of this trial has no result; see above, and run the search again")
    mean = sum(rates) / len(rates)
    old = lines.get(_recipe(recipe), {"trial": trial.number, "wall seconds": 0})
    lines[_recipe(recipe)] = {
        "trial": old["trial"],
        **recipe,
        **{f"seed {seed}": rate for seed, rate in zip(SEEDS, rates, strict=True)},
        "seeds at target": sum(rate >= TARGET for rate in rates),
        "mean": round(mean, 4),
        "wall seconds": max(old["wall seconds"], round(time.monotonic() - started)),  # finished cells are not run again
    }
    _write(list(lines.values()))
    return mean


def _write(lines: list[dict]) -> None:
    """Write search.csv, and the same table between the markers of the README."""
    table = pd.DataFrame(lines)
    write_atomically(HERE / "search.csv", table.to_csv(index=False).encode())
    write_between_markers(HERE / "README.md", "search", to_markdown(table) + "\n")


if __name__ == "__main__":
    main()
