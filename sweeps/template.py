"""Writes a study for a user who has no checkout: `muvla init NAME`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors, write_atomically


def write_study(folder: Path, name: str) -> Path:
    """Writes `folder/study.py`, a small study that runs on a CPU, and a README. Returns the path of study.py.

    Raises MuvlaError for a name that is no Python identifier, and where the file exists already.
    """
    if not name.isidentifier():
        raise MuvlaError(
            "NAME",
            got=name,
            expected="a name of letters, digits and underscores",
            remedy="choose another name, for example my_study",
        )
    file = folder / "study.py"
    if file.exists():
        raise MuvlaError(str(file), got="a file", expected="no file", remedy="choose another name or folder")
    templates = resources.files("sweeps") / "templates"
    readme = (templates / "README.md").read_text(encoding="utf-8").replace("FOLDER", str(folder))
    study = (templates / "study.py").read_text(encoding="utf-8").replace('name="NAME"', f'name="{name}"')
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "README.md", readme.replace("NAME", name).encode())
    write_atomically(file, study.encode())
    return file
