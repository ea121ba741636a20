"""Find a study by name, and narrow it as the options say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from muvla.errors import MuvlaError, unknown_name

if TYPE_CHECKING:
    from sweeps.ledger import Ledger
    from sweeps.study import Study

EXPERIMENTS = Path("experiments")


def study_names() -> list[str]:
    """The studies in experiments/ and in the working directory, by the name of their folders."""
    files = [*EXPERIMENTS.glob("*/study.py"), *Path().glob("*/study.py")]
    return sorted({file.parent.name for file in files})


def find_study(name: str) -> Path:
    """The folder or file of a study: an existing path, or the name of a folder in experiments/.

    Raises MuvlaError for another name, and for a folder whose studies have files of other names than study.py.
    """
    for path in (Path(name), EXPERIMENTS / name):
        if os.path.isfile(path) or os.path.isfile(path / "study.py"):  # also false for a name that no file can have
            return path
        if files := _studies_in(path):
            raise MuvlaError(
                "STUDY",
                got=f"{name}, a folder of {len(files)} studies",
                expected=f"one of {', '.join(map(str, files))}",
                remedy=f"name a file, such as {files[0]}",
            )
    raise unknown_name("STUDY", name, study_names(), "ls experiments" if EXPERIMENTS.is_dir() else "")


def _studies_in(folder: Path) -> list[Path]:
    """The files of a folder that define a study."""
    if not os.path.isdir(folder):
        return []
    return [file for file in sorted(folder.glob("*.py")) if "\nstudy = " in file.read_text(errors="replace")]


def open_study(
    name: str, assignments: list[str] | None = None, seeds: str | None = None, variants: list[str] | None = None
) -> Study:
    """The study with `--set`, `--seeds` and `--variant` applied. Raises MuvlaError if the study is not controlled.

    Args:
        name: name, folder or file of the study.
        assignments: `field=value`, applied to the base.
        seeds: training seeds, separated by commas; None for all.
        variants: names of variants; None or empty for all.
    """
    from muvla.config.serialization import parse_assignments
    from sweeps.loader import load_study
    from sweeps.sweep import parse_seeds

    study = load_study(find_study(name)).with_base(parse_assignments(assignments or []))
    study.check()
    return study.narrowed(parse_seeds(seeds), tuple(variants) if variants else None)


def open_ledger(runs: Path, data: Path) -> Ledger:
    from sweeps.ledger import Ledger

    return Ledger(runs, data)
