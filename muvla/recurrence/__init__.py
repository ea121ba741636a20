"""One tick of a batch of slots: the only place where a memory is read, written, intervened upon and truncated."""

from muvla.recurrence.moment import Moment
from muvla.recurrence.tick import Recurrence

__all__ = ["Moment", "Recurrence"]
