"""Readings of one trained cell, in its folder:

runs/<train id>/probes/
  <probe id>-<protocol id>.csv    the tidy frame
  <probe id>-<protocol id>.json   of what it was taken, written last: without it the reading is not finished
  <probe id>/                     what is no frame: traces, figures, videos
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muvla.envs.registry import backends, open_env
from muvla.errors import Interrupted, MuvlaError
from muvla.evaluation.evaluate import require_prompts
from muvla.models.policy import Policy
from muvla.probes.base import ScheduledMeasurement, Subject
from muvla.utils.io import disk_errors, read_json, write_atomically, write_json

if TYPE_CHECKING:
    from muvla.runs.run import Run


class Probing:
    """The part of a `Run` that takes readings."""

    def frame_file(self: Run, one: ScheduledMeasurement) -> Path:
        return self.folder / "probes" / f"{one.id}-{one.protocol.id}.csv"

    def reading_meta(self: Run, one: ScheduledMeasurement) -> dict[str, Any] | None:
        """Of a finished reading: probe, protocol, protocol hash, seeds, provenance id; None if it is not finished.
        None too for one of other episodes, which is taken anew.
        Raises MuvlaError for one of the same name that was taken
        of another protocol."""
        file = self.frame_file(one)
        if not file.with_suffix(".json").exists() or not file.exists():
            return None
        meta = read_json(file.with_suffix(".json"))
        if meta["protocol_hash"] != one.protocol.hash:
            raise MuvlaError(
                f"{file}: protocol_hash",
                got=meta["protocol_hash"],
                expected=one.protocol.hash,
                remedy="give what changed a version of its own, or remove this file and its .json to take it anew",
            )
        return meta if meta["seeds"] == list(one.seeds) else None

    def probe(
        self: Run,
        one: ScheduledMeasurement,
        device: str,
        policy: Policy | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Path:
        """The file of the reading's frame, taken now if it is not there. Raises MuvlaError for a policy without memory,
        for episodes that it was trained on, and for a frame without the columns that the reading declares; Interrupted,
        without a frame, when it is asked to stop."""

        def check_stop() -> None:
            if should_stop():
                raise Interrupted

        file = self.frame_file(one)
        if self.reading_meta(one) is not None:
            return file
        check_stop()
        statistics, _, training_episodes = self._trained_with()
        _require_unseen(one, training_episodes)
        policy = policy or self.load_policy(device)
        if one.reading.needs_memory and policy.memory.width == 0:
            raise MuvlaError(
                f"probe {one.id}",
                got="a policy without memory",
                expected="one with a memory to read",
                remedy="leave this probe out",
            )
        require_prompts(policy, [one.protocol])
        folder = self.folder / "probes" / one.id
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        cell = self.cell if (self.folder / "run.json").exists() else None  # a release has none
        subject = Subject(
            policy.eval(),
            statistics,
            one.protocol,
            cell,
            one.seeds,
            folder,
            lambda: open_env(one.protocol.task, one.protocol.image_size),
            self.store,
            check_stop,
        )
        provenance = self._record(device, backends(one.protocol.task), policy)
        with self._timed(f"evaluation {one.id} {one.protocol.id}", provenance):
            frame = one.reading.read(subject)
        if missing := [column for column in one.reading.columns if column not in frame]:
            raise MuvlaError(
                f"probe {one.id}: frame",
                got=f"no column {missing[0]!r}",
                expected=f"the columns {', '.join(one.reading.columns)}",
                remedy="correct the reading",
            )
        file.with_suffix(".json").unlink(missing_ok=True)  # of other episodes: it must not speak of the new frame
        write_atomically(file, frame.to_csv(index=False).encode())
        write_json(file.with_suffix(".json"), _taken_of(one) | {"provenance": provenance})
        return file


def _taken_of(one: ScheduledMeasurement) -> dict[str, Any]:
    return {
        "probe": one.id,
        "protocol": one.protocol.id,
        "protocol_hash": one.protocol.hash,
        "seeds": list(one.seeds),
    }


def _require_unseen(one: ScheduledMeasurement, training_episodes: tuple[range, ...]) -> None:
    overlap = [seeds for seeds in training_episodes if set(one.seeds) & set(seeds)]
    if overlap:
        raise MuvlaError(
            f"probe {one.id}: episodes",
            got=f"{one.seeds[0]}…{one.seeds[-1]}",
            expected=f"none of the training episodes {overlap[0].start}…{overlap[0].stop - 1}",
            remedy="choose another protocol",
        )
