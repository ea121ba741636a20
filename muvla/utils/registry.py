"""Members of an extension point by name: this project's by import string, other packages' by entry point.

An import string is `module:attribute`. A member's module is imported when the member is asked for, so that a list of
names costs no import. One rule holds for every extension point:

- This project's names come first, then those of installed distributions in alphabetical order. An entry point whose
  name is taken is left out, with a warning.
- Loading a member of another package by name raises MuvlaError if its module does not import. A walk over all members
  leaves such a member out, with a warning.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from muvla.errors import MuvlaError, unknown_name


@dataclass(frozen=True)
class Registry:
    """The members of one extension point.

    Attributes:
        group: entry-point group that other packages use, for example `muvla.memory`.
        members: name → import string, of the members in this project.
        field: configuration field or option that holds a member's name, for errors.
        listed_by: command that lists the members, for errors; empty where no command does.
    """

    group: str
    members: dict[str, str]
    field: str
    listed_by: str = ""

    def places(self) -> dict[str, str]:
        """Name → import string of every member, this project's first."""
        places = dict(self.members)
        for name, place in _entry_points(self.group, tuple(sys.path)):
            if places.setdefault(name, place) != place:
                warnings.warn(
                    f"entry point {name} = {place} of {self.group} is left out: the name {name} is {places[name]}",
                    stacklevel=2,
                )
        return places

    def names(self) -> list[str]:
        return list(self.places())

    def load(self, name: Any) -> Any:
        """The member's object.

        Raises:
            MuvlaError: no member has this name (the error names the nearest), or another package's member has no such
                module or attribute.
        """
        places = self.places()
        if not isinstance(name, str) or name not in places:
            raise unknown_name(self.field, name, places, self.listed_by)
        module, _, attribute = places[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a stranger's module may raise anything
            if name in self.members or isinstance(error, MuvlaError):
                raise
            raise MuvlaError(
                f"entry point {name} of {self.group}",
                got=f"{places[name]} ({type(error).__name__}: {error})",
                expected="module:attribute of a module that imports",
                remedy="mend or uninstall the package that declares the entry point",
            ) from error

    def each(self, load: Callable[[str], Any] | None = None) -> Iterator[tuple[str, Any]]:
        """Every member by name. Another package's member that raises MuvlaError is left out, with a warning.

        Args:
            load: name → member, where the extension point checks more than `load` of this class.
        """
        for name in self.places():
            try:
                member = (load or self.load)(name)
            except MuvlaError as error:
                if name in self.members:
                    raise
                warnings.warn(f"entry point {name} of {self.group} is left out: {error}", stacklevel=2)
                continue
            yield name, member


@lru_cache(maxsize=32)
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names and import strings, in the order of the distributions' names.

    Read once per import path: a scan of all installed distributions takes milliseconds.
    """
    points = sorted(entry_points(group=group), key=lambda point: (point.dist.name, point.name))
    return tuple((point.name, point.value) for point in points)
