"""Replay a recorded episode: run it again, compare it with its row, and write a video."""

from __future__ import annotations

from pathlib import Path

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow
from muvla.evaluation.replay import require_same
from muvla.evaluation.video import compose, write_video
from muvla.runs.evaluate import Evaluator
from muvla.runs.results import result_rows
from muvla.runs.run import Run


def replay_episode(
    evaluator: Evaluator, protocol: Protocol, intervention: str, episode: int, file: Path | None = None
) -> tuple[Path, int]:
    """Write a video of an episode that ends as its row says.

    Args:
        evaluator: the policy.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".
        episode: number of the episode in the protocol, from 0.
        file: the video; by default `videos/` in the run's folder.

    Returns:
        The file and the number of steps.

    Raises:
        MuvlaError: the episode has no row, or ended in another way than its row says.
    """
    run, row = evaluator.run, recorded_row(evaluator.run, protocol, intervention, episode)
    watched, _ = evaluator.replay(protocol, intervention, row.seed)
    require_same(watched, row)
    name = f"{protocol.id}-{intervention.replace('/', '-')}-{episode}.mp4"
    file = file or run.folder / "videos" / name
    write_video(compose(watched, f"{run.train}  {protocol.id}  {intervention}  episode {episode}"), file)
    return file, len(watched.steps)


def recorded_row(run: Run, protocol: Protocol, intervention: str, episode: int) -> EpisodeRow:
    """The row of an episode.

    Args:
        run: the run.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".
        episode: number of the episode in the protocol, from 0.

    Raises:
        MuvlaError: the episode has no row, or ended in an error.
    """
    rows = result_rows(run, protocol, intervention)
    row = next((row for row in rows if row.seed == protocol.seed + episode), None)
    if row is None or row.error:
        raise MuvlaError(
            "--episode",
            got=f"{episode}, which {row.error if row else 'has no row'}",
            expected=f"a measured episode of {protocol.id} under {intervention}",
            remedy=f"choose an episode in 0…{protocol.episodes - 1}, or evaluate this condition first",
        )
    return row
