"""The variant of a single task with the confounds of the published study."""

from __future__ import annotations

from experiments.paper_table.alone import single_task_study
from experiments.paper_table.published import study as table

study = single_task_study(table)
