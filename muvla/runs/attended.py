"""Recorded episodes of a run, played again with the attention of every step."""

from __future__ import annotations

from collections.abc import Sequence

from muvla.evaluation.protocol import Protocol
from muvla.evaluation.replay import require_same
from muvla.probes.attention import AttentionRecorder
from muvla.probes.attention_maps import Maps, observe_attention
from muvla.probes.attention_overlay import AttendedEpisode
from muvla.runs.evaluate import Evaluator
from muvla.runs.replay import recorded_row


def replay_attended(
    evaluator: Evaluator, protocol: Protocol, intervention: str, episodes: Sequence[int]
) -> list[AttendedEpisode]:
    """Plays recorded episodes again.

    Args:
        evaluator: the policy.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".
        episodes: numbers of the episodes in the protocol, from 0; at most one per slot of the protocol.

    Returns:
        The episodes in this order, with the attention of every step.

    Raises:
        MuvlaError: an episode has no row, or ended in another way than its row says.
    """
    rows = [recorded_row(evaluator.run, protocol, intervention, episode) for episode in episodes]
    recorder = AttentionRecorder(Maps(evaluator.policy, len(rows)))
    with observe_attention(evaluator.policy, recorder.maps):
        replayed = evaluator.replay_all(protocol, intervention, [row.seed for row in rows], recorders=(recorder,))
    for row in rows:
        require_same(replayed[row.seed], row)
    return [AttendedEpisode(evaluator.policy, replayed[row.seed], recorder.attention[row.seed]) for row in rows]
