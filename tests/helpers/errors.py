"""How tests assert that an input is refused: by the error's type and field, not by its wording."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from muvla.errors import MuvlaError


@contextlib.contextmanager
def refused(field: str, error: type[MuvlaError] = MuvlaError) -> Iterator[pytest.ExceptionInfo]:
    """The block must raise `error` (or a subclass) about `field`; the yielded `.value` holds the other parts."""
    with pytest.raises(error) as info:
        yield info
    assert info.value.field == field


@contextlib.contextmanager
def refused_at(ending: str, got: str = "") -> Iterator[pytest.ExceptionInfo]:
    """The block must raise a MuvlaError whose field ends with `ending`, a place below a temporary folder.

    Args:
        ending: end of the error's field.
        got: a number or name that the error's value holds. It tells apart the causes of errors about one field.
    """
    with pytest.raises(MuvlaError) as info:
        yield info
    assert info.value.field.endswith(ending), info.value
    assert got in str(info.value.got), info.value


def printed_field(capsys: pytest.CaptureFixture) -> str:
    """The field of the single error that a command printed on stderr since the last reading."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return re.match(r"error: (.+?): got ", line)[1]
