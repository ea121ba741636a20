"""The chunks that a policy predicted, kept beside the rows of a result: how far does an intervention move them?

A file per result, `chunks/<result id>.jsonl`, of one line per episode: its ticks' steps and chunks in base64, about
5.4 bytes a number. 200 episodes of the recall suite are half a megabyte, 50 of LIBERO up to 10. A protocol that could
need more than `MOST` numbers keeps none.

Legend: n ticks, H chunk, A action dim.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from muvla.errors import MuvlaError
from muvla.evaluation.episode import Ticks
from muvla.evaluation.records import EpisodeRow
from muvla.utils.io import append_line, read_lines

MOST = 4_000_000  # numbers


class ChunkFile:
    """Appended to as episodes end; the last line of an episode counts."""

    def __init__(self, folder: Path, result: str):
        self.path = folder / f"{result}.jsonl"

    def append(self, seed: int, ticks: Ticks) -> None:
        chunks = np.stack([chunk for _, chunk in ticks]).astype("<f4")
        content = base64.b64encode(chunks.tobytes()).decode()
        steps = [step for step, _ in ticks]
        append_line(self.path, {"seed": seed, "steps": steps, "shape": chunks.shape, "chunks": content})

    def read(self) -> dict[int, dict[int, np.ndarray]]:
        """Episode seed → step → chunk (H, A), normalised. Raises MuvlaError for a damaged file; a last line that was
        cut short is left out, as if its episode had not been run."""
        found = {}
        for number, line in enumerate(read_lines(self.path), start=1):
            try:
                chunks = np.frombuffer(base64.b64decode(line["chunks"], validate=True), dtype="<f4")
                ticks = zip(line["steps"], chunks.reshape(line["shape"]), strict=True)
                found[line["seed"]] = dict(ticks)
            except (ValueError, TypeError, KeyError) as error:  # of base64, of a number's bytes, of what lacks
                raise MuvlaError(
                    f"{self.path}:{number}",
                    got=f"{type(error).__name__}: {error}",
                    expected="seed, steps, shape and float32 chunks of that shape",
                    remedy="remove the file; rows do not depend on it",
                ) from None
        return found


def chunk_change(folder: Path, baseline: str, result: str, rows: Iterable[EpisodeRow]) -> dict[int, np.ndarray]:
    """Step since the cue's last one → mean absolute difference of the normalised chunks at that step, of each episode
    that both results, named by their ids, have a tick in; counted from the episode's start where there is no cue.

    `rows` are those of `result`. Up to the decision both see the same frames; afterwards a difference is also one of
    what the robot has come to see. Empty where chunks were not kept.
    """
    plain, moved = ChunkFile(folder, baseline).read(), ChunkFile(folder, result).read()
    found: dict[int, list[float]] = {}
    for row in sorted((row for row in rows if row.error is None), key=lambda row: row.seed):
        one, other = plain.get(row.seed, {}), moved.get(row.seed, {})
        cue_end = (row.blank_length or 0) + row.cue_length - 1 if row.cue_length else 0
        for step in one.keys() & other.keys():
            found.setdefault(step - cue_end, []).append(float(np.abs(one[step] - other[step]).mean()))
    return {since: np.array(found[since]) for since in sorted(found)}
