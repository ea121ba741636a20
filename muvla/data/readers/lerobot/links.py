"""Links of a LeRobotDataset: they may lead to files of the same folder, and into the blobs of the Hub's cache."""

from __future__ import annotations

from pathlib import Path

from muvla.errors import MuvlaError
from muvla.utils.files import disk_errors


def require_inside(root: Path, file: Path) -> Path:
    """Returns `file`. Raises MuvlaError if a link leads out of the folder.

    Args:
        root: folder of the dataset.
        file: a path below the folder.
    """
    with disk_errors(file):
        target, folder = file.resolve(), root.resolve()
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    if target.is_relative_to(folder) or target.is_relative_to(blobs):
        return file
    raise MuvlaError(
        str(file),
        got=f"a link to {target}",
        expected="a file of the dataset's folder",
        remedy=f"put the file in the link's place if it is the dataset's: `cp --remove-destination {target} {file}`",
    )
