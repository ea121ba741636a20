"""Success over updates, at the updates of one training that a study declares."""

from __future__ import annotations

from analysis.figures import style
from analysis.figures.base import Subject
from analysis.figures.updates import UpdatesFigure


class LearningFigure(UpdatesFigure):
    """A panel per variant and a line per training seed: success of the weights after every declared update."""

    frame = "updates"
    x = "update"

    def applies(self, subject: Subject) -> bool:
        return True

    def stem(self, subject: Subject) -> str:
        return "learning" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Success over the updates of a training by variant and training seed"

    def bound(self, subject: Subject) -> tuple[float, list]:
        goal = float(subject.lines["goal"].max())
        label = f"0.9 of the expert's success ({goal:.2f})"
        return goal, [style.handle(label, color=style.GREY, linestyle="--", marker="")]
