"""Evaluation of a released checkpoint, which no study here has trained.

Its rows lie in `runs/<id>/` like those of any cell. The id is the hash of the files that decide what the policy
computes and of the statistics' key; `release.json` there tells which they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.checkpoints.tensors import sha256
from muvla.config import ReleasedPrecision
from muvla.config.serialization import content_hash
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.models.policy import Policy
from muvla.runs.run import Run
from muvla.utils.io import write_json


@dataclass(frozen=True)
class ReleasedRun(Run):
    directory: ReleasedCheckpoint
    bounds: dict[str, Any]  # one dataset's entry of the statistics
    precision: ReleasedPrecision

    def load_policy(self, device: str) -> Policy:
        return self.directory.load(self.precision, device).policy

    @property
    def way_out(self) -> str:
        return f"look at {self.folder / 'failure.json'}; to start again, rename {self.folder}"

    def _trained_with(self) -> tuple[Statistics, int | None, tuple[range, ...]]:
        """Neither its training seed nor the seeds of its demonstrations are told by a release."""
        return Statistics.released(self.bounds), None, ()


def released_run(
    root: Path,
    data: Path,
    name: str,
    directory: ReleasedCheckpoint,
    key: str | None = None,
    precision: ReleasedPrecision = "float32",
) -> ReleasedRun:
    """`name` is what the directory was asked for by, on the hub or on the disk; it is recorded and decides nothing.
    `key` names a dataset of the statistics; it may be left out where there is one alone. Raises MuvlaError for an
    unknown one, and for a directory that would not load."""
    known = list(directory.statistics)
    if key is None and len(known) == 1:
        key = known[0]
    if key not in known:
        raise MuvlaError(
            "--statistics",
            got=key,
            expected=f"one of {', '.join(known) or 'none: the directory has no statistics'}",
            remedy="name the dataset whose scale the actions have",
        )
    directory.require_loadable()
    made_of = {"files": {file.name: sha256(file) for file in directory.read_files()}, "statistics": key}
    made_of |= {"precision": precision} if precision != "float32" else {}
    run = ReleasedRun(root, data, content_hash(made_of), directory, directory.statistics[key], precision)
    told = {"train": run.train, "name": name, "path": str(directory.path)}
    told |= {"memory": "left out"} if directory.without_memory else {}
    write_json(run.folder / "release.json", told | made_of)
    return run
