"""The contract of a recorder, which stores data about the episodes of a rollout.

Traces, replayed steps, attention, action chunks and donor states have recorders. A recorder changes nothing: rows are
bit for bit the same with and without it.
"""

from __future__ import annotations

from muvla.evaluation.actor import Tick
from muvla.evaluation.episode import Outcome, RunningEpisode


class Recorder:
    """Five callbacks, in the order of an episode. Each does nothing unless a recorder overrides it.

    Episodes overlap in time: a recorder stores its data by `episode.seed`.
    """

    needs_every_tick = True  # False for a recorder that accepts episodes restored at a later step

    def episode_begins(self, episode: RunningEpisode) -> None:
        """Drop what is left of an earlier attempt. Called before the reset, once per attempt."""

    def after_tick(self, tick: Tick) -> None:
        """Record what a model read, wrote and predicted."""

    def before_step(self, episode: RunningEpisode) -> None:
        """Record the observation and `episode.next_action`, which is not clipped yet."""

    def after_step(self, episode: RunningEpisode) -> None:
        """Record the observation and `episode.info` after a step, the last one included."""

    def episode_ends(self, episode: RunningEpisode, outcome: Outcome) -> None:
        """Finish the episode's record, or drop it where `outcome.error` is set. Called before the row is written."""
