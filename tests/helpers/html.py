"""A page as a tree of elements, for tests that look at what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}


@dataclass
class Element:
    """An element with its attributes and its children; texts are children of the name `#text`."""

    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, name: str = "", **wanted: str | None) -> Iterator[Element]:
        """Descendants of this name that have these attributes; underscores stand for hyphens, None for any value."""
        for child in self.children:
            attributes = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}
            fits = all(k in child.attributes and v in (None, child.attributes[k]) for k, v in attributes.items())
            if fits and (not name or child.name == name):
                yield child
            yield from child.all(name, **wanted)

    @property
    def text(self) -> str:
        """All text below, in order of the page, with single spaces."""
        return " ".join("".join(self._pieces()).split())

    def _pieces(self) -> Iterator[str]:
        yield from self.texts
        for child in self.children:
            yield from child._pieces()


class _Tree(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(Element("#text", {}, texts=[data]))


def parse(html: str) -> Element:
    """The page's tree. Raises AssertionError where an element is not closed in order."""
    tree = _Tree()
    tree.feed(html)
    tree.close()
    assert tree.open == [tree.root], f"<{tree.open[-1].name}> is not closed"
    return tree.root
