"""Launchers by name. A launcher is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from muvla.errors import MuvlaError
from muvla.utils.registry import Registry
from sweeps.launchers.base import Launcher

LAUNCHERS = Registry("muvla.launchers", {"local": "sweeps.launchers.local:LocalLauncher"}, "--launcher")


def get_launcher(name: str) -> type[Launcher]:
    """The launcher's class. Raises MuvlaError for an unknown name, and for a member that is no launcher."""
    launcher = LAUNCHERS.load(name)
    if not (isinstance(launcher, type) and issubclass(launcher, Launcher)):
        raise MuvlaError(
            f"--launcher {name}",
            got=LAUNCHERS.places()[name],
            expected="a subclass of sweeps.launchers.base.Launcher",
            remedy="derive the class from Launcher, or fix the entry point of the package that registers it",
        )
    return launcher
