"""Packages of extras, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from muvla.errors import MuvlaError


def import_package(package: str, purpose: str) -> ModuleType:
    """Import a package of the extra `data`. Raises MuvlaError if the package is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MuvlaError(
            package,
            got=f"no such package ({error})",
            expected=f"the package, {purpose}",
            remedy="run `pip install -e '.[data]'`",
        ) from None


def import_extra(package: str, extra: str) -> ModuleType:
    """Import a package of an extra. Raises MuvlaError with the command that installs the extra."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MuvlaError(
            package,
            got=f"no such package ({error})",
            expected=f"the package, which the extra {extra} installs",
            remedy=f"run `pip install -e '.[{extra}]'`",
        ) from None
