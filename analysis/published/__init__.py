"""The papers' numbers as data, and their place beside ours.

`published_frame` holds every number, `published_for` the numbers of one protocol's task, `beside` our rates with them,
and `averages` the papers' averages with those that their rows give. Nothing here was measured by this project.
"""

from analysis.published.averages import averages, disagreements
from analysis.published.beside import beside, published_for
from analysis.published.frame import published_frame
from analysis.published.tables import TABLES, PublishedTable

__all__ = ["TABLES", "PublishedTable", "averages", "beside", "disagreements", "published_for", "published_frame"]
