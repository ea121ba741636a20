"""Measurements of one run, in its folder.

runs/<train id>/probes/
  <probe id>-<protocol id>.csv    the tidy frame
  <probe id>-<protocol id>.json   protocol, seeds, provenance and digest of the frame; written last: it marks the end
  <probe id>/                     other output: traces, figures, videos
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvla.envs.registry import backends, open_env
from muvla.errors import MuvlaError
from muvla.evaluation.evaluate import require_prompts
from muvla.evaluation.members import modules_in_use
from muvla.evaluation.records import DamagedResult, damages, remove
from muvla.probes.base import ScheduledMeasurement, Subject
from muvla.runs.evaluate import Evaluator
from muvla.runs.run import Run
from muvla.utils.foreign import read_model
from muvla.utils.io import disk_errors, write_atomically, write_json


def frame_file(run: Run, scheduled: ScheduledMeasurement) -> Path:
    """The file of the measurement's frame."""
    return run.folder / "probes" / f"{scheduled.id}-{scheduled.protocol.id}.csv"


@dataclass(frozen=True)
class MeasurementMeta:
    """The meta data beside a frame.

    Attributes:
        probe: id of the probe.
        protocol: id of the protocol.
        protocol_hash: hash of the protocol.
        seeds: of the episodes.
        provenance: provenance id.
        sha256: of the frame's file; None in a measurement that is older than seals.
    """

    probe: str
    protocol: str
    protocol_hash: str
    seeds: list[int]
    provenance: str
    sha256: str | None = None


def measurement_meta(run: Run, scheduled: ScheduledMeasurement) -> dict[str, Any] | None:
    """Probe, protocol, protocol hash, seeds and provenance id of a finished measurement.

    Returns:
        None if the measurement is not finished, or was taken from other episodes: then it is taken again.

    Raises:
        MuvlaError: a measurement of this name was taken under another protocol.
        DamagedResult: the frame is not as it was written, or a file of the measurement cannot be read.
    """
    file = frame_file(run, scheduled)
    if not file.with_suffix(".json").exists() or not file.exists():
        return None
    meta = read_meta(file)
    if meta.protocol_hash != scheduled.protocol.hash:
        raise MuvlaError(
            f"{file}: protocol_hash",
            got=meta.protocol_hash,
            expected=scheduled.protocol.hash,
            remedy="give the changed protocol a new version, or remove this file and its .json to measure again",
        )
    return asdict(meta) if meta.seeds == list(scheduled.seeds) else None


def read_meta(file: Path) -> MeasurementMeta:
    """The meta data of a frame. Raises DamagedResult if they do not hold."""
    with damages(file):
        meta = read_model(file.with_suffix(".json"), MeasurementMeta)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if meta.sha256 not in (None, digest):
        raise DamagedResult(
            f"{file}: sha256", got=digest, expected=f"{meta.sha256}, the file as it was written", remedy=remove(file)
        )
    return meta


def take_measurement(evaluator: Evaluator, scheduled: ScheduledMeasurement) -> Path:
    """The file of the measurement's frame; the measurement is taken if it is not finished.

    Raises:
        Interrupted: a stop was asked for; no frame is written.
        MuvlaError: the policy has no memory, it was trained on these episodes, or the frame lacks a declared column.
    """
    run, file = evaluator.run, frame_file(evaluator.run, scheduled)
    if measurement_meta(run, scheduled) is not None:
        return file
    evaluator.check_stop()
    _require_unseen(scheduled, evaluator.trained_on.episodes)
    policy, measurement = evaluator.policy, scheduled.measurement
    if measurement.needs_memory and not policy.memory.has_state:
        raise MuvlaError(
            f"probe {scheduled.id}",
            got="a policy without memory",
            expected="a policy with a memory",
            remedy="leave this probe out",
        )
    require_prompts(policy, [scheduled.protocol])
    subject = _subject(evaluator, scheduled)
    task = scheduled.protocol.task
    members = modules_in_use(policy, [task.name], probe=measurement.read)
    provenance = run.record_provenance(evaluator.device, backends(task), policy, members=members)
    with run.timed(f"evaluation {scheduled.id} {scheduled.protocol.id}", provenance):
        frame = measurement.read(subject)
    if missing := [column for column in measurement.columns if column not in frame]:
        raise MuvlaError(
            f"probe {scheduled.id}: frame",
            got=f"no column {missing[0]!r}",
            expected=f"the columns {', '.join(measurement.columns)}",
            remedy="let the probe's function return every column that the probe declares",
        )
    file.with_suffix(".json").unlink(missing_ok=True)  # it describes the old frame
    content = frame.to_csv(index=False).encode()
    write_atomically(file, content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(file.with_suffix(".json"), _meta(scheduled) | {"provenance": provenance, "sha256": digest})
    return file


def _subject(evaluator: Evaluator, scheduled: ScheduledMeasurement) -> Subject:
    run, protocol = evaluator.run, scheduled.protocol
    folder = run.folder / "probes" / scheduled.id
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return Subject(
        evaluator.policy.eval(),
        evaluator.trained_on.statistics,
        protocol,
        run.cell if run.is_created else None,  # a release has no cell
        scheduled.seeds,
        folder,
        lambda: open_env(protocol.task, protocol.image_size),
        run.store,
        evaluator.check_stop,
    )


def _meta(scheduled: ScheduledMeasurement) -> dict[str, Any]:
    return {
        "probe": scheduled.id,
        "protocol": scheduled.protocol.id,
        "protocol_hash": scheduled.protocol.hash,
        "seeds": list(scheduled.seeds),
    }


def _require_unseen(scheduled: ScheduledMeasurement, training_episodes: tuple[range, ...]) -> None:
    overlap = [seeds for seeds in training_episodes if set(scheduled.seeds) & set(seeds)]
    if overlap:
        raise MuvlaError(
            f"probe {scheduled.id}: episodes",
            got=f"{scheduled.seeds[0]}…{scheduled.seeds[-1]}",
            expected=f"none of the training episodes {overlap[0].start}…{overlap[0].stop - 1}",
            remedy="choose another protocol",
        )
