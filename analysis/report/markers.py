"""Generated blocks of a hand-written file."""

from __future__ import annotations

from pathlib import Path

from muvla.errors import MuvlaError
from muvla.utils.io import write_atomically


def write_between_markers(path: Path, name: str, block: str) -> None:
    """Replaces the text between the generated markers of `name`, or appends the markers to a file without them.

    Args:
        path: Markdown file; made if it does not exist.
        name: the block's name.
        block: text that ends with a newline.

    Raises:
        MuvlaError: the file holds one of the two markers.
    """
    begin, end = f"<!-- generated: {name} -->", f"<!-- end generated: {name} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    generated = f"{begin}\n{block}{end}"
    if begin in text and end in text:
        head, _, rest = text.partition(begin)
        text = head + generated + rest.partition(end)[2]
    elif begin in text or end in text:
        raise MuvlaError(
            str(path), got="one of two markers", expected=f"{begin} and {end}", remedy="restore the missing marker"
        )
    else:
        text = text.rstrip("\n") + f"\n\n{generated}\n"
    write_atomically(path, text.encode())
