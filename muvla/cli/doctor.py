"""`muvla doctor`: check the installation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.SYSTEM, "muvla doctor")(doctor)


def doctor(
    sim: Annotated[bool, typer.Option("--sim", metavar="", help="Count a missing simulator as an error.")] = False,
    json: o.Json = False,
) -> int:
    """Check the installation.

    Every missing part is named with its remedy. Exit status 1 means that a needed part is missing.
    """
    from muvla.cli.diagnosis import diagnose
    from muvla.cli.output import EXIT_MISSING, result_line, show_json

    findings = []
    for finding in diagnose(sim):
        findings.append(finding)
        result_line(finding.text())
    missing = [finding.name for finding in findings if finding.needed and not finding.ok]
    result_line(f"\nMissing: {', '.join(missing)}." if missing else "\nEverything needed is installed.")
    show_json({"ok": not missing, "findings": [asdict(finding) for finding in findings]})
    return EXIT_MISSING if missing else 0
