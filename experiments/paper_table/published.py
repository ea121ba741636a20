"""The variants of the published table with the confounds of the published study, to measure the confounds' effect."""

from __future__ import annotations

import dataclasses

from experiments.paper_table.study import study as controlled
from muvla.config.presets import of_version, paper_variants
from muvla.config.serialization import replace
from muvla.evaluation.catalog import get_protocols

study = dataclasses.replace(
    controlled,
    name="paper_table_published",
    title="The variants of the published table, with its confounds",
    base=replace(controlled.base, of_version("published")),
    variants=paper_variants("published"),
    protocols=(*controlled.protocols, *get_protocols("mikasa5-ol8@1")),
    notes="""
K multiplies the frames here, as published. A difference between two values of K is therefore also a difference between
two budgets.
""",
)
