"""The variant of a single task, under control: RememberColor5 alone beside all five tasks, at the same budget.

"all tasks" is the cell `m=64, K=2` of study.py. Both names have the same train id, so the cell is trained once.
"""

from __future__ import annotations

import dataclasses

from experiments.paper_table.study import TASKS
from experiments.paper_table.study import study as table
from muvla.config.presets import single_task
from muvla.config.serialization import replace
from sweeps.study import Study


def single_task_study(table: Study) -> Study:
    """Derive the study of a single task from a table's study: the best published variant, on the first task."""
    return dataclasses.replace(
        table,
        name=f"{table.name}_alone",
        title=f"{table.title}: {TASKS[0]} trained alone",
        base=replace(table.base, table.variants["m=64, K=2"]),
        variants=single_task(TASKS[0]),
        factors=("data.mixture",),
        protocols=tuple(protocol for protocol in table.protocols if protocol.task.name == TASKS[0]),
        notes=table.notes
        + """
At the same budget, a policy trained on one task sees this task about five times as often as a policy trained on five.
Action scales follow the training data: the quantiles of one task, or of all tasks.
""",
    )


study = single_task_study(table)
