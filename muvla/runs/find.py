"""Find a run by its train id, or by the beginning of it."""

from __future__ import annotations

from pathlib import Path

from muvla.errors import MuvlaError, unknown_name
from muvla.runs.run import Run


def train_ids(root: Path) -> list[str]:
    """The train ids of all trained or started cells under `root`, sorted."""
    return sorted(path.parent.name for path in root.glob("*/run.json"))


def find_run(root: Path, data: Path, name: str) -> Run:
    """The run with this train id, or with the only train id that begins so.

    Raises:
        MuvlaError: no train id begins so, or several do.
    """
    ids = train_ids(root)
    matching = [train for train in ids if train == name] or [train for train in ids if name and train.startswith(name)]
    if len(matching) == 1:
        return Run(root, data, matching[0])
    if matching:
        raise MuvlaError(
            "RUN",
            got=name,
            expected=f"the beginning of one train id under {root}, not of {', '.join(matching)}",
            remedy="add a character",
        )
    if not ids:
        raise MuvlaError(
            "RUN", got=name, expected=f"a run under {root}, which has none", remedy="run `muvla sweep STUDY`"
        )
    raise unknown_name("RUN", name, ids, f"muvla ls runs --runs {root}")


def load_run(root: str | Path, name: str, data: str | Path = "data") -> Run:
    """The run with this train id, or with the only train id that begins so.

    Args:
        root: folder of all runs.
        name: train id, or the beginning of it.
        data: folder of all datasets.

    Example:
        policy = load_run("runs", "3f09").load_policy()
    """
    return find_run(Path(root), Path(data), name)
