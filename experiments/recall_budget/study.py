"""K under the three budget regimes, side by side: what the published comparison measured beside K."""

from __future__ import annotations

from experiments.recall_quick.study import M, base
from muvla.config import tbptt
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

REGIMES = {"matched": "matched", "matched frames": "matched_frames", "published": "published"}

NOTES = """
Within a regime K is compared with K; between the regimes of one K nothing differs but the budget. `matched`: one window
and one number of updates for every K. `matched frames`: windows of K ticks, and as many updates as give the frames of
the others. `published`: windows of K ticks at one number of updates, so that K multiplies the frames. K = 8 is the
declared window, so that the three regimes are one computation there, and one variant.

What these numbers cannot show:

- Under `matched frames` small K has more, smaller and noisier updates at the same learning rate, and a schedule of more
  steps: it matches what is seen, not what is done with it.
- The learning rate was searched for K = 8 at the declared budget. Other budgets might do better with one of their own.
- One task with a delay of one or two steps. With windows of K ticks and K = 1 or 2 no block holds a cue and its
  decision under any regime.
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
    notes=NOTES,
)
