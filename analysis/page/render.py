"""Renders a page from its content: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from analysis.figures.style import COLOURS
from analysis.page.content import Content
from analysis.page.numbers import interval, number, plus_minus
from analysis.page.registry import SECTIONS, get_section
from analysis.page.svg import tag
from muvla.utils.io import write_atomically

NAME = "index.html"
INSIDE = 12 * 2**20  # bytes of pictures inside the page; with everything else it stays under 15 MB


def render_page(content: Content) -> str:
    """The HTML of the page."""
    sections = [
        {"id": name, "title": section.title, "navigation": section.navigation, "html": Markup(section.html(content))}
        for name, section in SECTIONS.each(get_section)
        if section.applies(content)
    ]
    return render(content, "page.html", sections=sections, colours=_colour_rules())


def write_page(content: Content, folder: Path) -> Path:
    """Writes `index.html` into the folder; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / NAME, render_page(content).encode())
    return folder / NAME


def render(content: Content, template: str, **values: Any) -> Markup:
    """A template of `analysis/page/templates` with the content and these values."""
    return Markup(_environment().get_template(template).render(content=content, **values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": inline, "blocks": blocks}
    environment.globals |= {"number": number, "interval": interval, "plus_minus": plus_minus, "variant": variant}
    return environment


def variant(content: Content, label: str) -> Markup:
    """A variant's name with the mark of its colour."""
    return tag("span", tag("i"), label, class_="variant", style=f"--c:{content.colour(label)}")


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def inline(text: str, content: Content) -> Markup:
    """A sentence in Markdown. A code span that names a variant gets the mark of its colour."""
    return _with_variants(_markdown().renderInline(text), content)


def blocks(text: str, content: Content) -> Markup:
    """Paragraphs in Markdown, as `inline`. Headings are made bold, because the page has headings of its own."""
    html = re.sub(r"<h\d>(.*?)</h\d>", r"<p><strong>\1</strong></p>", _markdown().render(text), flags=re.DOTALL)
    return _with_variants(html, content)


def _with_variants(html: str, content: Content) -> Markup:
    names = {str(escape(name)): name for name in {**content.labels, **dict.fromkeys(content.labels.values())}}

    def mark(match: re.Match[str]) -> str:
        return str(variant(content, names[match[1]])) if match[1] in names else match[0]

    return Markup(re.sub(r"<code>(.*?)</code>", mark, html, flags=re.DOTALL))


def _colour_rules() -> Markup:
    """CSS variables of the variants' colours, for light and dark backgrounds."""
    rules = "".join(f"--v{i}:light-dark({colour},{on_dark(colour)});" for i, colour in enumerate(COLOURS))
    return Markup(f":root{{{rules}}}")


def on_dark(colour: str) -> str:
    """A colour for a dark background: mixed with white until its relative luminance (WCAG) is at least 0.3."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        mixed = [channel + share * (1 - channel) for channel in channels]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mixed]
        if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] >= 0.3:
            break
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in mixed)
