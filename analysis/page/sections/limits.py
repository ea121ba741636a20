"""The limits of the page's numbers: the study's notes, and what its design cannot conclude."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.page.content import DONE, Content
from analysis.page.render import render
from analysis.page.section import Section
from muvla.stats.hypotheses import smallest_p
from sweeps.contrasts import LEVEL


class LimitsSection(Section):
    """The study's notes, and limits that follow from its size and its state."""

    title = "What these numbers cannot show"
    navigation = "limits"

    def applies(self, content: Content) -> bool:
        return True

    def html(self, content: Content) -> str:
        return render(content, "limits.html", limits=list(limits(content)))


def limits(content: Content) -> Iterator[str]:
    """Sentences on what follows from the number of seeds, from unfinished cells and from the tasks."""
    seeds = len(content.seeds)
    if seeds == 1:
        yield "One training seed is no evidence about a variant: another seed may learn what this seed did not."
    least = min(1.0, content.planned_contrasts * smallest_p(seeds, seeds)) if content.planned_contrasts and seeds else 0
    if least > LEVEL and seeds > 1:
        yield (
            f"{seeds} training seeds and {content.planned_contrasts} planned contrasts cannot conclude: the smallest p "
            f"after Holm's correction is {least:.2g}."
        )
    if missing := len(content.states) - content.counts[DONE]:
        yield f"{missing} of {len(content.states)} planned cells are not in these numbers."
    if len(content.rates) and (errors := int(content.rates["errors"].sum())):
        yield f"{errors} episodes ended in an error and enter no rate."
    for mix in content.mixes:
        yield f"The rows come from several {mix}; such a difference is not controlled."
    if len(content.published):
        yield "Published numbers were measured by other code. They are context, not a controlled comparison."
    if len(content.contrasts) and pd.notna(content.contrasts["p"]).any():
        yield "A contrast that is not significant does not show that two variants are equal."
