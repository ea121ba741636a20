"""A table of a paper: cells of stacked lines, split into parts that fit a column or a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from analysis.paper.latex import escape, text_width, wrap

COLUMN, PAGE = 3.25 * 72.27, 6.75 * 72.27  # points of TeX
SLACK = 0.97  # share of the width that measured texts may take
GAP = 2.0  # between two columns, each side
NAME = 84.0  # widest first column; a longer text is wrapped
HEADER = 38.0  # widest heading of a column, which is wrapped
SIZES = {r"\footnotesize": 1.0, r"\scriptsize": 0.92}  # a table takes the first size at which it needs no second part
MOST_LINES = 48  # of a part, so that a part and its caption fit a page


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes:
        text: its text, which is escaped.
        bold: print it bold.
        more: further lines below.
    """

    text: str
    bold: bool = False
    more: tuple[str, ...] = ()

    @property
    def width(self) -> float:
        return max(map(text_width, (self.text, *self.more))) * (1.15 if self.bold else 1)

    def lines(self) -> list[str]:
        first = escape(self.text)
        return [rf"\textbf{{{first}}}" if self.bold and first else first, *map(escape, self.more)]


@dataclass(frozen=True)
class Row:
    """A row: its name, its cells, and the heading above it where a block of rows begins."""

    name: str
    entries: tuple[Entry, ...]
    block: str = ""
    rule: bool = False  # a line above


@dataclass(frozen=True)
class PaperTable:
    """A table before it is split.

    Attributes:
        label: of LaTeX, unique within a study.
        caption: its caption, which is escaped.
        corner: heading of the names.
        columns: headings.
        groups: heading above each column; equal neighbours share one. Empty strings have none.
        rows: the rows.
        width: `COLUMN` or `PAGE`.
    """

    label: str
    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[str, ...] = field(default=())
    width: float = COLUMN
    size: str = next(iter(SIZES))

    def latex(self) -> str:
        """All parts as LaTeX floats; where a table has several, their captions say so."""
        groups = self.groups or ("",) * len(self.columns)
        sized = [replace(self, groups=groups, size=size) for size in SIZES]
        sized = next((table for table in sized if len(list(table._column_sets())) == 1), sized[-1])
        parts = list(sized._parts())
        return "\n".join(_float(part, i, len(parts)) for i, part in enumerate(parts))

    def _parts(self) -> Iterator[PaperTable]:
        for columns in self._column_sets():
            part = replace(
                self,
                columns=tuple(self.columns[i] for i in columns),
                groups=tuple(self.groups[i] for i in columns),
                rows=tuple(replace(row, entries=tuple(row.entries[i] for i in columns)) for row in self.rows),
            )
            for rows in _row_sets(part.rows):
                yield replace(part, rows=rows)

    def _column_sets(self) -> Iterator[list[int]]:
        """Columns that stand side by side within the width."""
        room = SLACK * self.width / SIZES[self.size] - self._name_width() - GAP
        columns: list[int] = []
        for i in range(len(self.columns)):
            if columns and self._used([*columns, i]) > room:
                yield columns
                columns = []
            columns.append(i)
        yield columns

    def _used(self, columns: list[int]) -> float:
        """Width of these columns; a group's heading may be wider than its columns."""
        used, first = 0.0, 0
        for heading, n in _spans([self.groups[i] for i in columns]):
            widths = [self._column_width(i) + 2 * GAP for i in columns[first : first + n]]
            used += max(sum(widths), text_width(heading) + 2 * GAP)
            first += n
        return used

    def _name_width(self) -> float:
        names = [self.corner, *(row.name for row in self.rows)]
        return max(max(map(text_width, wrap(name, NAME))) for name in names)

    def _column_width(self, i: int) -> float:
        heading = max(map(text_width, wrap(self.columns[i], HEADER)))
        return max([heading, *(row.entries[i].width for row in self.rows)])


def _row_sets(rows: Sequence[Row]) -> Iterator[tuple[Row, ...]]:
    """Rows of one part each; a block that continues repeats its heading."""
    part: list[Row] = []
    used, block = 0, ""
    for row in rows:
        height = _height(row)
        block = row.block or block
        if part and used + height > MOST_LINES:
            yield tuple(part)
            part, used, row = [], 0, replace(row, block=block)
        part.append(row)
        used += height
    yield tuple(part)


def _height(row: Row) -> int:
    return max([len(wrap(row.name, NAME)), *(1 + len(entry.more) for entry in row.entries)]) + bool(row.block)


def _float(table: PaperTable, number: int, parts: int) -> str:
    environment = "table*" if table.width > COLUMN else "table"
    label = table.label if number == 0 else f"{table.label}-{number + 1}"
    part = f" Part {number + 1} of {parts}." if parts > 1 else ""
    return "\n".join(
        [
            rf"\begin{{{environment}}}[tbp]",
            rf"\setlength{{\belowcaptionskip}}{{4pt}}\centering{table.size}",
            rf"\setlength{{\tabcolsep}}{{{GAP:g}pt}}",
            rf"\caption{{{escape(table.caption + part)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{@{{}}l{'c' * len(table.columns)}@{{}}}}",
            r"\toprule",
            *_headings(table),
            r"\midrule",
            *_body(table),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{environment}}}",
            "",
        ]
    )


def _headings(table: PaperTable) -> Iterator[str]:
    """The groups with a rule below each, and the columns' headings in as many lines as the longest needs."""
    spans = _spans(table.groups)
    if any(name for name, _ in spans):
        cells = [rf"\multicolumn{{{n}}}{{c}}{{{escape(name)}}}" if name else " & " * (n - 1) for name, n in spans]
        yield " & " + " & ".join(cells) + r" \\"
        first = 2
        rules = []
        for name, n in spans:
            if name:
                rules.append(rf"\cmidrule(lr){{{first}-{first + n - 1}}}")
            first += n
        yield "".join(rules)
    stacks = [wrap(table.corner, NAME), *(wrap(column, HEADER) for column in table.columns)]
    yield from _stacked([[escape(line) for line in stack] for stack in stacks], top=False)


def _spans(groups: Sequence[str]) -> list[tuple[str, int]]:
    spans: list[tuple[str, int]] = []
    for name in groups:
        if spans and name and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1] + 1)
        else:
            spans.append((name, 1))
    return spans


def _body(table: PaperTable) -> Iterator[str]:
    for i, row in enumerate(table.rows):
        if i and (row.block or row.rule):
            yield r"\addlinespace" if row.block else r"\midrule"
        if row.block:
            yield rf"\multicolumn{{{len(table.columns) + 1}}}{{@{{}}l}}{{\emph{{{escape(row.block)}}}}} \\"
        name = [escape(line) for line in wrap(row.name, NAME)]
        yield from _stacked([name, *(entry.lines() for entry in row.entries)], top=True)


def _stacked(stacks: list[list[str]], top: bool) -> Iterator[str]:
    """Lines of a tabular; short stacks stand at the top, or at the bottom."""
    height = max(map(len, stacks))
    filled = [
        [*stack, *[""] * (height - len(stack))] if top else [*[""] * (height - len(stack)), *stack] for stack in stacks
    ]
    for line in zip(*filled, strict=True):
        yield " & ".join(line) + r" \\"
