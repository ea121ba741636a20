"""The first screen: state of the sweep, the question, the answer, a mark per seed, the task, counts of predictions."""

from __future__ import annotations

from analysis.page.answer import answer
from analysis.page.content import Content
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.seed_dots import dot_panels
from analysis.page.verdict_words import counts_of

WORDS = {
    "done": "done",
    "running": "running",
    "partial": "begun",
    "planned": "planned",
    "failed": "failed",
    "not a measurement": "not a measurement",
    "damaged": "damaged",
}


class OverviewSection(Section):
    """The part of the page that a reader sees before scrolling."""

    title = ""  # the question is the heading of the page
    navigation = "answer"

    def applies(self, content: Content) -> bool:
        return True

    def html(self, content: Content) -> str:
        counts = content.counts
        states = [(state, word, counts[state]) for state, word in WORDS.items() if counts[state]]
        return render(
            content,
            "overview.html",
            states=states,
            problems=[state for state in content.states if state.problem],
            errors=int(content.rates["errors"].sum()) if len(content.rates) else 0,
            answer=answer(content),
            panels=dot_panels(content),
            verdicts=counts_of(content.verdicts),
        )
