"""The chunks that a policy predicted, stored beside the rows of a result: how far does an intervention move them?

A file per result, `chunks/<result id>.jsonl`, has one line per episode: the steps and chunks of its ticks in base64,
about 5.4 bytes a number. 200 episodes of the recall suite take half a megabyte, 50 of LIBERO up to 10. A protocol whose
chunks may have more than `MOST_NUMBERS` numbers has no such file.

Legend: n ticks, H chunk, A action dim.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from muvla.envs.registry import step_limit
from muvla.errors import MuvlaError
from muvla.evaluation.episode import Chunks, Outcome, RunningEpisode
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.records import EpisodeRow
from muvla.models.policy import Policy
from muvla.utils.io import append_line, read_lines

MOST_NUMBERS = 4_000_000


def most_numbers(policy: Policy, protocol: Protocol) -> int:
    """Return the largest count of numbers that the chunks of all the protocol's episodes may have."""
    limit = protocol.step_limit or step_limit(protocol.task)
    return protocol.episodes * limit * policy.config.chunk * policy.interface.action_dim


class ChunkFile(Recorder):
    """Appends a line as an episode ends; the last line of an episode counts."""

    needs_every_tick = False  # a restored episode has the chunks of its skipped ticks

    def __init__(self, folder: Path, result: str):
        self.path = folder / f"{result}.jsonl"

    def episode_ends(self, episode: RunningEpisode, outcome: Outcome) -> None:
        if outcome.chunks:
            self.append(outcome.seed, outcome.chunks)

    def append(self, seed: int, ticks: Chunks) -> None:
        chunks = np.stack([chunk for _, chunk in ticks]).astype("<f4")
        content = base64.b64encode(chunks.tobytes()).decode()
        steps = [step for step, _ in ticks]
        append_line(self.path, {"seed": seed, "steps": steps, "shape": chunks.shape, "chunks": content})

    def read(self) -> dict[int, dict[int, np.ndarray]]:
        """Return episode seed → step → chunk (H, A), normalised.

        A last line that was cut short is left out, as if its episode had not been run. Raises MuvlaError for any other
        damage.
        """
        by_seed = {}
        for number, line in enumerate(read_lines(self.path), start=1):
            try:
                chunks = np.frombuffer(base64.b64decode(line["chunks"], validate=True), dtype="<f4")
                ticks = zip(line["steps"], chunks.reshape(line["shape"]), strict=True)
                by_seed[line["seed"]] = dict(ticks)
            except (ValueError, TypeError, KeyError) as error:  # base64, the bytes of a number, or a missing key
                raise MuvlaError(
                    f"{self.path}:{number}",
                    got=f"{type(error).__name__}: {error}",
                    expected="seed, steps, shape and float32 chunks of that shape",
                    remedy="remove the file; rows do not depend on it",
                ) from None
        return by_seed


def chunk_change(folder: Path, baseline: str, result: str, rows: Iterable[EpisodeRow]) -> dict[int, np.ndarray]:
    """Return step since the cue's last step → mean absolute difference of two results' normalised chunks there.

    Up to the decision both results see the same frames. Afterwards they may see different ones, and a difference has
    two causes.

    Args:
        folder: of the chunk files.
        baseline: result id, usually of no intervention.
        result: result id.
        rows: of `result`; they hold the lengths of the phases. Without a cue, steps are counted from the start.

    Returns:
        An array per step, with a number per episode that has a tick there in both results; empty without chunk files.
    """
    plain, moved = ChunkFile(folder, baseline).read(), ChunkFile(folder, result).read()
    changes: dict[int, list[float]] = {}
    for row in sorted((row for row in rows if row.error is None), key=lambda row: row.seed):
        before, after = plain.get(row.seed, {}), moved.get(row.seed, {})
        cue_end = (row.blank_length or 0) + row.cue_length - 1 if row.cue_length else 0
        for step in before.keys() & after.keys():
            changes.setdefault(step - cue_end, []).append(float(np.abs(before[step] - after[step]).mean()))
    return {since: np.array(changes[since]) for since in sorted(changes)}
