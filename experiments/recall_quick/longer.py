"""recall_quick at twice the training length, which separates slow learning from inability."""

from __future__ import annotations

import dataclasses

from experiments.recall_quick.study import U
from experiments.recall_quick.study import study as shorter
from muvla.config.serialization import replace

study = dataclasses.replace(
    shorter,
    name="recall_quick_2u",
    title="Which variants remember the marked disc after twice the training length?",
    base=replace(shorter.base, {"budget.updates": 2 * U}),
)
