"""Names that become files, and paths that files name: nothing leaves its folder or meets a pattern by accident."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from muvla.errors import MuvlaError
from muvla.utils.files import NAME_BYTES, shorten

LONGEST = 200  # bytes of a name; the rest of NAME_BYTES is for endings and temporary files
UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\*?\[\]%#&;:|<>\"'`$!(){}\s]")
PLACE = r"\{(?P<name>\w*)(?::0(?P<width>\d{1,2})d)?\}"  # of a format string that a file holds


def require_name(name: Any, field: str) -> str:
    """Return `name` if a file can have it.

    Args:
        name: text of letters, digits and other printable characters, at most LONGEST bytes in UTF-8.
        field: option or field that holds the name, for errors.

    Raises:
        MuvlaError: the name is no text, is empty or long, holds a separator, a control character or a character of
            patterns (`* ? [ ]`), begins with a dot, or cannot be written in UTF-8.
    """
    problem = _problem(name)
    if problem is None:
        return name
    got = name if not isinstance(name, str) else shorten(ascii(name), 100)
    remedy = "choose a name of letters, digits, `-`, `_` and `.`"
    if isinstance(name, str) and (safe := make_name(name)):
        remedy = f"use for example {safe!r}"
    raise MuvlaError(field, got=got, expected=f"a name that a file can have: {problem}", remedy=remedy)


def _problem(name: Any) -> str | None:
    """The rule that a name breaks; None for a safe name."""
    if not isinstance(name, str):
        return "text"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "text that UTF-8 can hold"
    rules = (
        (not name.strip() or name != name.strip(), "not empty, without outer spaces"),
        (size > LONGEST, f"at most {LONGEST} bytes"),
        (name.startswith("."), "no dot at the beginning"),
        (re.search(r"[/\\\x00-\x1f\x7f]", name) is not None, "no `/`, `\\` or control character"),
        (re.search(r"[*?\[\]]", name) is not None, "no `*`, `?`, `[` or `]`"),
    )
    return next((rule for broken, rule in rules if broken), None)


def make_name(text: str) -> str:
    """A safe name like `text`: other characters become `_`. Empty where no character is left."""
    safe = UNSAFE.sub("_", text.encode("utf-8", "ignore").decode()).strip("._")
    return safe.encode()[:LONGEST].decode("utf-8", "ignore")


def inside(folder: Path, relative: Any, field: str) -> Path:
    """Return `folder / relative` for a path that a file names.

    Args:
        folder: the folder that the path must not leave.
        relative: the path as the file writes it.
        field: file and place of the path, for errors.

    Raises:
        MuvlaError: the path is no text, is empty, absolute or too long, climbs with `..`, or holds a NUL byte.
    """
    problem = None
    if not isinstance(relative, str) or not relative.strip():
        problem = "a path"
    else:
        parts = PurePosixPath(relative).parts
        try:
            longest = max((len(part.encode()) for part in parts), default=0)
        except UnicodeEncodeError:
            longest = NAME_BYTES + 1
        rules = (
            (relative.startswith("/") or ".." in parts, f"a path inside {folder}"),
            ("\0" in relative or longest > NAME_BYTES or len(relative) > 3000, f"names of at most {NAME_BYTES} bytes"),
        )
        problem = next((rule for broken, rule in rules if broken), None)
    if problem is None:
        return folder / relative
    got = shorten(ascii(relative), 100) if isinstance(relative, str) else relative
    raise MuvlaError(
        field,
        got=got,
        expected=problem,
        remedy="write the path relative to the folder of the data, with the file below this folder",
    )


def expand(pattern: Any, values: dict[str, str | int], field: str) -> str:
    """Fill a format string that a file holds, for example `data/chunk-{chunk_index:03d}.parquet`.

    Args:
        pattern: names in braces; a whole number may have a width of at most two digits (`:03d`).
        values: name → value.
        field: file and place of the pattern, for errors.

    Raises:
        MuvlaError: the pattern is no text, has an unknown name, an attribute, an index, or another format.
    """
    expected = "text with " + ", ".join(f"{{{name}}}" for name in values)
    remedy = "write the pattern with these names, for example {" + next(iter(values)) + ":03d}"
    if not isinstance(pattern, str):
        raise MuvlaError(field, got=pattern, expected=expected, remedy=remedy)

    def fill(match: re.Match[str]) -> str:
        name, width = match["name"], match["width"]
        if name not in values or (width and not isinstance(values[name], int)):
            raise MuvlaError(field, got=match[0], expected=expected, remedy=remedy)
        return f"{values[name]:0{int(width)}d}" if width else str(values[name])

    text = re.sub(PLACE, fill, pattern)
    if rest := re.search(r"[{}]", re.sub(PLACE, "", pattern)):
        raise MuvlaError(field, got=f"{rest[0]} in {shorten(ascii(pattern), 100)}", expected=expected, remedy=remedy)
    return text
