"""Statistics: intervals of proportions and means, tests over training seeds, and aggregates over tasks."""

from muvla.stats.means import student_interval
from muvla.stats.proportions import newcombe, wilson

__all__ = ["newcombe", "student_interval", "wilson"]
