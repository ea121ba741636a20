"""The command that completes a LeRobotDataset on the disk."""

from __future__ import annotations

import shlex
from pathlib import Path


def fetch_command(root: Path, files: str) -> str:
    """Returns the command that fetches files of a dataset from the Hugging Face Hub.

    Args:
        root: folder of the dataset.
        files: name or pattern, relative to the folder.
    """
    folder = shlex.quote(str(root))
    return f"`hf download OWNER/NAME --repo-type dataset --include {shlex.quote(files)} --local-dir {folder}`"
