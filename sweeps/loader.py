"""Loads the study of a file.

A study file may import modules of its project. The root of the project is the nearest folder above the file that holds
a `pyproject.toml`; without such a folder, the root is the file's folder. The loader puts the root on `sys.path`, which
Python's multiprocessing passes to every process that a sweep or an evaluation starts.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from pathlib import Path

from muvla.errors import MuvlaError
from sweeps.study import Study

LIBRARY = ("muvla", "sweeps", "analysis")
_roots: set[Path] = set()  # of the projects whose studies this process has loaded


def load_study(path: Path) -> Study:
    """The `study` of a study file, or of the `study.py` in a folder.

    Raises MuvlaError for a path without a study file, and for a file that cannot be imported or defines no `study`.
    """
    file = path / "study.py" if path.is_dir() else path
    if not file.exists():
        raise MuvlaError(
            "study",
            got=str(path),
            expected="a study file, or a folder that holds study.py",
            remedy="name an existing study, or write a new one with `muvla init NAME`",
        )
    put_on_path(project_root(file))
    spec = importlib.util.spec_from_file_location(f"muvla_study_{file.parent.name}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except MuvlaError:
        raise
    except Exception as error:  # a misspelt field or import, or anything else that the file's code does
        raise MuvlaError(
            str(file),
            got=f"{type(error).__name__}: {error}",
            expected="a study file that can be imported",
            remedy=f"edit {file.name}{_line_of(error, file)}",
        ) from error
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise MuvlaError(
            str(file), got=type(study).__name__, expected="a Study named `study`", remedy="write `study = Study(…)`"
        )
    return study


def project_root(file: Path) -> Path:
    """The folder from which a study file imports its neighbours."""
    parents = file.resolve().parents
    return next((folder for folder in parents if (folder / "pyproject.toml").exists()), parents[0])


def put_on_path(root: Path) -> None:
    """Puts `root` first on `sys.path`, and forgets modules that were imported from the roots of other projects.

    Two projects may both have a `common.py`, and each study must import the file of its project.
    """
    _roots.add(root)
    others = {str(other) for other in _roots - {root}}
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        if file is None or top in LIBRARY:
            continue
        if any(file[: match.start()] in others for match in re.finditer(rf"/{re.escape(top)}(?=/|\.py$)", file)):
            del sys.modules[name]
    sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]


def _line_of(error: Exception, file: Path) -> str:
    """`, line 12`: the line of the study file at which an error arose."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""
