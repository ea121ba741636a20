"""recall_quick with the recipe that a tuning chose for each variant.

Written by

    muvla tune recall_quick --variant K=8 --variant K=2 --variant K=1 --over optimizer.lr=1e-4:3e-3:log \\
        --over optimizer.warmup=0:0.3 --trials 12 --rungs 0.25 --keep 0.4 --set budget.slots=8 --seeds 100 \\
        --episodes 100 --processes 2 --out experiments/recall_tune

The chosen trial has the best mean success over the tuning's seeds. Ties go to the fewest training
frames, then to the lower value of each tuned field, in the order of `--over`, then to the lower
trial number.
"""

from pathlib import Path

from sweeps.loader import load_study
from sweeps.tune.recipe import with_recipes

# The value of every tuned field, and after # the trial with its mean success over training seeds 100.
RECIPES = {
    "K=8": {"optimizer.lr": 0.0001116, "optimizer.warmup": 0.07261},  # trial 6: 1.000
    "K=2": {"optimizer.lr": 0.0006177, "optimizer.warmup": 0.1484},  # trial 4: 0.300
    "K=1": {"optimizer.lr": 0.0002852, "optimizer.warmup": 0.1031},  # trial 2: 0.300
}

base = load_study(Path(__file__).parent / "../recall_quick/study.py").with_base({"budget.slots": 8})
study = with_recipes(base, "recall_quick_tuned", RECIPES)
