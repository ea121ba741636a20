"""K under the three budget regimes, side by side: the published comparison changed the budget together with K."""

from __future__ import annotations

from experiments.recall_quick.study import M, base
from muvla.config import tbptt
from muvla.evaluation.catalog import get_protocol
from sweeps.contrasts import Contrasts
from sweeps.study import Study

REGIMES = {"matched": "matched", "matched frames": "matched_frames", "published": "published"}

NOTES = """
Within a regime, nothing differs but K. Between the regimes of the same K, nothing differs but the budget.

- `matched`: the same window and the same number of updates for every K.
- `matched frames`: windows of K ticks, and enough updates for the frames of the other variants.
- `published`: windows of K ticks at the same number of updates, so that K multiplies the frames.

K = 8 is the declared window, so the three regimes are the same computation for K = 8, and the same variant.

What these numbers cannot show:

- Under `matched frames` a small K has more, smaller and noisier updates at the same learning rate, and a schedule of
  more steps. The regime matches the number of frames, not the optimization.
- The learning rate was searched for K = 8 at the declared budget. Other budgets might do better with another learning
  rate.
- The contrasts were declared after seeds 0-2 were known.
- The study has one task with a delay of one or two steps. With windows of K ticks and K = 1 or 2 no block holds a cue
  and its decision under any regime.
"""

study = Study(
    name="recall_budget",
    title="Does the effect of K come from its training budget?",
    base=base,
    variants={
        f"K={K}, {name}": tbptt(K, M) | {"budget.regime": regime} for K in (1, 2) for name, regime in REGIMES.items()
    }
    | {"K=8, all three": tbptt(8, M)},
    factors=("truncation", "budget.regime"),
    seeds=(0, 1, 2, 3, 4),
    protocols=(get_protocol("recall-position3-rh@1"),),
    contrasts=Contrasts(
        pairs=(
            ("K=8, all three", "K=2, matched"),
            ("K=2, matched frames", "K=2, matched"),
            ("K=2, published", "K=2, matched"),
            ("K=1, matched frames", "K=1, matched"),
            ("K=1, published", "K=1, matched"),
        )
    ),
    notes=NOTES,
)
