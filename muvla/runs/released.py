"""The run of a released checkpoint, which no study here has trained.

Its rows lie in `runs/<id>/`, like the rows of a cell. The id is the hash of the files that decide the policy's output,
and of the key of the statistics. `release.json` lists these files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvla.checkpoints.opening import AnyCheckpoint
from muvla.config import ReleasedPrecision
from muvla.config.serialization import content_hash
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError, unknown_name
from muvla.models.policy import Policy
from muvla.runs.run import Run, TrainedOn
from muvla.utils.io import write_json


@dataclass(frozen=True)
class ReleasedRun(Run):
    directory: AnyCheckpoint
    bounds: dict[str, Any]  # one dataset's entry of the statistics
    precision: ReleasedPrecision
    key: str  # of the statistics

    def load_policy(self, device: str = "cpu") -> Policy:
        return self.directory.load_policy(self.precision, device)

    @property
    def failure_remedy(self) -> str:
        return f"look at {self.folder / 'failure.json'}; to start again, rename {self.folder}"

    def trained_on(self) -> TrainedOn:
        """A release states neither its training seed nor the seeds of its demonstrations."""
        return TrainedOn(Statistics.from_release(self.bounds), None, ())


def released_run(
    root: Path,
    data: Path,
    name: str,
    directory: AnyCheckpoint,
    key: str | None = None,
    precision: ReleasedPrecision = "float32",
) -> ReleasedRun:
    """The run of a released checkpoint; writes its `release.json`.

    Args:
        root: folder of all runs.
        data: folder of all datasets.
        name: name of the checkpoint as the user gave it; recorded, and not part of the id.
        directory: the checkpoint.
        key: dataset of the statistics; None if the statistics have exactly one.
        precision: number format of the weights.

    Raises:
        MuvlaError: the statistics lack the key, or the checkpoint does not load.
    """
    keys = list(directory.statistics)
    if key is None and len(keys) == 1:
        key = keys[0]
    if key is None:
        raise MuvlaError(
            "--statistics",
            got=None,
            expected=f"one of {', '.join(keys)}" if keys else "a checkpoint with statistics",
            remedy="name the dataset whose scale the actions have",
        )
    if key not in keys:
        raise unknown_name("--statistics", key, keys)
    directory.require_loadable()
    content = {"files": directory.hashes(), "statistics": key} | directory.stored_normalisation()
    content |= {"precision": precision} if precision != "float32" else {}
    run = ReleasedRun(root, data, content_hash(content), directory, directory.statistics[key], precision, key)
    origin = {"train": run.train, "name": name, "path": str(directory.path)}
    origin |= {"memory": "left out"} if directory.without_memory else {}
    write_json(run.folder / "release.json", origin | content)
    return run
