"""The variant of a single task, under control: RememberColor5 alone beside all five, at one budget.

"all tasks" is the cell `m=64, K=2` of study.py: it has the same train id, and is trained once.
"""

from __future__ import annotations

import dataclasses

from experiments.paper_table.study import TASKS
from experiments.paper_table.study import study as table
from muvla.config.presets import single_task
from muvla.config.serialization import replace
from sweeps.study import Study


def of_table(table: Study) -> Study:
    """The like of a table's study for its best published variant and the first task."""
    return dataclasses.replace(
        table,
        name=f"{table.name}_alone",
        title=f"{table.title}: {TASKS[0]} trained alone",
        base=replace(table.base, table.variants["m=64, K=2"]),
        variants=single_task(TASKS[0]),
        factors=("data.mixture",),
        protocols=tuple(one for one in table.protocols if one.task.name == TASKS[0]),
        notes=table.notes
        + """
At one budget, the single task is shown about five times as often as among five. Scales are those of what is trained:
the quantiles of one task, and of all.
""",
    )


study = of_table(table)
