"""The contract of a section of the page. docs/extending/section.md shows a complete example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from analysis.page.content import Content


class Section(ABC):
    """A part of the page with a heading of its own.

    The page calls `applies` first and then `html`. The heading, the anchor and the entry in the navigation come from
    the page.

    Attributes:
        title: the heading.
        navigation: the entry in the navigation; short.
    """

    title: ClassVar[str]
    navigation: ClassVar[str]

    @abstractmethod
    def applies(self, content: Content) -> bool:
        """True if the content has something for this section. An empty section misleads, so the page leaves it out."""

    @abstractmethod
    def html(self, content: Content) -> str:
        """The HTML below the heading.

        Texts of a study are escaped: `analysis.page.svg.tag` and `analysis.page.render.render` do so. A number is
        written once, as `analysis.page.numbers.number` writes it, so that a test finds the frame's value beside it.
        Nothing is loaded from elsewhere.
        """
