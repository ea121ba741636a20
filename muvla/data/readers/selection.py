"""The episodes of a dataset that an import takes: by number, by instruction, by count, and with a text alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from muvla.data.readers.schema import Schema, read_instruction
from muvla.data.readers.source import Source
from muvla.errors import MuvlaError, unknown_name

RANGE = re.compile(r"(\d{0,12}):(\d{0,12})|(\d{1,12})")


@dataclass(frozen=True)
class Selection:
    """The chosen episodes.

    numbers: ascending, from 0.
    left_out: reason → number of episodes.
    shown: the choice in words, for the origin of an import; "" for all episodes.
    """

    numbers: tuple[int, ...]
    left_out: dict[str, int]
    shown: str = ""

    @property
    def summary(self) -> str:
        """The left-out episodes in words; "" where none is left out."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)


def select(
    source: Source,
    schema: Schema,
    episodes: str | None = None,
    limit: int | None = None,
    instructions: Sequence[str] = (),
    skip_unlabelled: bool = False,
) -> Selection:
    """Returns the episodes that pass every filter, at most `limit`. Texts are read only if a filter needs them.

    Args:
        source: the opened dataset.
        schema: names the instruction.
        episodes: numbers and ranges, such as `0:50,60`; the end of a range is not included. None takes all.
        limit: the most episodes; the first ones are taken.
        instructions: the accepted instructions; any instruction without any.
        skip_unlabelled: leave out episodes without an instruction.

    Raises:
        MuvlaError: a number beyond the dataset, an instruction that no episode has, or no episode left.
    """
    total = len(source)
    numbers = list(range(total)) if episodes is None else parse_numbers(episodes, total)
    left_out = {"not among --episodes": total - len(numbers)}
    if (instructions or skip_unlabelled) and schema.text is None:
        numbers, left_out = _filter_texts(source, schema, numbers, instructions, skip_unlabelled, left_out)
    elif instructions:
        _require_text(schema.text, instructions)
    if limit is not None:
        if limit < 1:
            raise MuvlaError("--limit", got=limit, expected="at least 1", remedy="omit --limit to take all episodes")
        left_out["beyond --limit"] = max(0, len(numbers) - limit)
        numbers = numbers[:limit]
    if not numbers:
        raise MuvlaError(
            str(source.path),
            got=f"no episode left of {total}: {Selection((), left_out).summary or 'the dataset is empty'}",
            expected="at least one episode",
            remedy="choose more with --episodes, or pass --instruction with the sentence of unlabelled episodes",
        )
    choice = {"episodes": episodes, "limit": limit, "instructions": list(instructions) or None}
    shown = [f"{name} {value}" for name, value in choice.items() if value is not None]
    shown += ["without unlabelled ones"] if skip_unlabelled else []
    return Selection(tuple(numbers), {reason: n for reason, n in left_out.items() if n}, ", ".join(shown))


def parse_numbers(text: str, total: int) -> list[int]:
    """Returns ascending episode numbers from numbers and ranges, such as `0:50,60`.

    Raises MuvlaError for other text, and for a number that is not below `total`.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = RANGE.fullmatch(part)
        if match is None:
            raise MuvlaError(
                "--episodes",
                got=text,
                expected="numbers and ranges from 0, such as 0:50 or 3,5,10:20",
                remedy="separate them with commas; the end of a range is not included",
            )
        start = int(match[3] or match[1] or 0)
        stop = start + 1 if match[3] else int(match[2] or total)
        if not start < stop <= total:
            raise MuvlaError(
                "--episodes",
                got=part,
                expected=f"numbers below {total}, the episodes of the dataset, in ascending ranges",
                remedy=f"pass --episodes 0:{total} for all",
            )
        numbers.update(range(start, stop))
    return sorted(numbers)


def _filter_texts(
    source: Source,
    schema: Schema,
    numbers: list[int],
    instructions: Sequence[str],
    skip_unlabelled: bool,
    left_out: dict[str, int],
) -> tuple[list[int], dict[str, int]]:
    """Returns the episodes whose instruction is wanted, and the counts of those left out."""
    path = schema.instruction
    records = source.records([path], numbers)
    texts = {number: read_instruction(record, path) for number, record in zip(numbers, records, strict=True)}
    labelled = [number for number in numbers if texts[number] is not None]
    unlabelled = len(numbers) - len(labelled)
    if skip_unlabelled or instructions:
        left_out = left_out | {"without an instruction": unlabelled}
        numbers = labelled
    if not instructions:
        return numbers, left_out
    wanted = [text.strip() for text in instructions]
    existing = {texts[number] for number in labelled}
    for text in wanted:
        if text not in existing:
            raise unknown_name("--only-instruction", text, existing)
    kept = [number for number in numbers if texts[number] in wanted]
    return kept, left_out | {"of another instruction": len(numbers) - len(kept)}


def _require_text(text: str, instructions: Sequence[str]) -> None:
    for instruction in instructions:
        if instruction.strip() != text:
            raise unknown_name("--only-instruction", instruction, [text])
