"""The exact differences between variants in everything that is computed."""

from __future__ import annotations

from analysis.page.content import Content
from analysis.page.render import render
from analysis.page.section import Section


class DifferencesSection(Section):
    """A sentence per variant, and what truncation and chunk can credit."""

    title = "What differs, exactly"
    navigation = "differences"

    def applies(self, content: Content) -> bool:
        return bool(content.differences or content.coverage)

    def html(self, content: Content) -> str:
        return render(content, "differences.html")
