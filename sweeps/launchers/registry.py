"""Launchers by name. A launcher is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muvla.errors import MuvlaError
from muvla.utils.registry import Registry
from sweeps.launchers.base import Launcher
from sweeps.launchers.options import parse_options

LAUNCHERS = Registry(
    "muvla.launchers",
    {
        "local": "sweeps.launchers.local:LocalLauncher",
        "slurm": "sweeps.launchers.slurm:SlurmLauncher",
        "ray": "sweeps.launchers.ray:RayLauncher",
    },
    "--launcher",
)


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


def make_launcher(name: str, processes: int | None, options: Mapping[str, Any], device: str = "cpu") -> Launcher:
    """The launcher with its options.

    Args:
        name: its name in the registry.
        processes: cells at once; None for the launcher's default.
        options: option → value, or its text.
        device: "cpu", "cuda" or "cuda:N", which the default number of cells depends on.

    Raises:
        MuvlaError: an unknown launcher or option, or a value that does not fit.
    """
    launcher = get_launcher(name)
    parsed = parse_options(launcher.Options, options, name)
    return launcher(launcher.default_processes(device, parsed) if processes is None else processes, parsed)
