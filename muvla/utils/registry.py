"""Members of an extension point by name: this project's by import string, other packages' by entry point.

An import string is `module:attribute`. A member's module is imported when the member is asked for, so that a list of
names costs no import.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from muvla.errors import unknown_name


@dataclass(frozen=True)
class Registry:
    """The members of one extension point.

    Attributes:
        group: entry-point group that other packages use, for example `muvla.memory`.
        members: name → import string, of the members in this project.
        field: configuration field or option that holds a member's name, for errors.
    """

    group: str
    members: dict[str, str]
    field: str

    def places(self) -> dict[str, str]:
        """Name → import string of every member; this project's names come first and win."""
        return self.members | {
            name: place
            for name, place in _entry_points(self.group, tuple(sys.path)).items()
            if name not in self.members
        }

    def names(self) -> list[str]:
        return list(self.places())

    def load(self, name: Any) -> Any:
        """The member's object. Raises MuvlaError with the nearest match for an unknown name."""
        if not isinstance(name, str):
            raise unknown_name(self.field, name, self.places())
        # Only a name that this project does not have needs the scan for entry points.
        place = self.members.get(name) or self.places().get(name)
        if place is None:
            raise unknown_name(self.field, name, self.places())
        module, _, attribute = place.partition(":")
        return getattr(importlib.import_module(module), attribute)


@lru_cache(maxsize=32)
def _entry_points(group: str, _path: tuple[str, ...]) -> dict[str, str]:
    """Read once per import path: a scan of all installed distributions takes milliseconds."""
    return {point.name: point.value for point in entry_points(group=group)}
