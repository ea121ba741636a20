"""Attention along an episode: mass between segments, maps on the cameras' patches, overlays.

Episodes run at the protocol's batch shape. The attention is that of their ticks (`muvla.probes.attention_maps`),
averaged over heads. Every episode also gets a sheet and a video in `<folder>/<protocol id>/`
(`muvla.probes.attention_overlay`).

Legend: E episodes, T steps, L layers, V cameras, P patches, R kinds of rows, C kinds of keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from muvla.envs.phases import events
from muvla.errors import MuvlaError
from muvla.evaluation.actor import Tick
from muvla.evaluation.context import default_workers
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.replay import ReplayedEpisode, replay
from muvla.evaluation.video import write_video
from muvla.models.sequence import Segment
from muvla.probes.attention_maps import ACTION_READ, Attention, Maps, observe_attention
from muvla.probes.attention_overlay import AttendedEpisode, sheet, video
from muvla.probes.base import Measurement, Subject
from muvla.probes.means import means
from muvla.utils.io import disk_errors

ALL = -1  # in column `layer`: the mean over layers
# The pairs (row, key) that a report draws, averaged over layers. The frame has all pairs.
DRAWN = (
    (ACTION_READ, Segment.MEMORY.name),
    (ACTION_READ, Segment.VISION.name),
    (Segment.MEMORY.name, Segment.VISION.name),
    (Segment.MEMORY.name, Segment.MEMORY.name),
)
KEYS = ["measure", "layer", "from_segment", "to_segment", "camera", "patch", "since_cue"]


class AttentionRecorder(Recorder):
    """Records, for every step, the attention of its tick, or of the last tick before it."""

    def __init__(self, maps: Maps):
        self.maps = maps
        self.attention: dict[int, list[Attention]] = {}  # by seed
        self._newest: dict[int, Attention] = {}

    def episode_begins(self, episode: RunningEpisode) -> None:
        self.attention[episode.seed] = []

    def after_tick(self, tick: Tick) -> None:
        self._newest[tick.episode.seed] = self.maps.of(tick.episode.index)

    def before_step(self, episode: RunningEpisode) -> None:
        self.attention[episode.seed].append(self._newest[episode.seed])


def attended(subject: Subject, environments: int | None = None) -> list[AttendedEpisode]:
    """Run the subject's episodes and return them with the attention of every step."""
    protocol, policy = subject.protocol, subject.policy
    environments = min(environments or default_workers(protocol), protocol.slots, len(subject.seeds))
    recorder = AttentionRecorder(Maps(policy, environments))
    actor = PolicyActor(policy, subject.statistics, protocol)
    with observe_attention(policy, recorder.maps):
        episodes = replay(actor, subject.open_env, subject.seeds, environments, subject.check_stop, [recorder])
    return [AttendedEpisode(policy, replayed, recorder.attention[seed]) for seed, replayed in episodes.items()]


def frame(episodes: list[AttendedEpisode]) -> pd.DataFrame:
    """Return a line per measure, layer, pair of segments, patch and step since the cue.

    Column `value` is the mean over the `n` episodes that have the step, with its interval. Layer −1 is the mean over
    layers. `measure` is one of:

    - `mass`: the share of a row's attention that falls on a segment; `uniform` is the share under equal attention to
      all allowed keys.
    - `map`: the share that falls on one patch of one camera, averaged over layers.
    - `rollout`: the same for attention rollout.

    ACTION_READ are the rows that the action head reads. `curve` names the pairs that are drawn.
    """
    lines = pd.DataFrame([line for episode in episodes for line in _lines(episode)])
    at = lines[KEYS].fillna(ALL)  # lines without camera and patch are a group too
    table = means(at.assign(value=lines["value"]), KEYS)
    uniform = at.assign(value=lines["uniform"]).groupby(KEYS)["value"].mean().rename("uniform")
    table = table.merge(uniform.reset_index(), on=KEYS)
    for column in ("camera", "patch"):
        table[column] = table[column].astype(int).where(table["measure"] != "mass").astype("Int64")
    pair = table["from_segment"] + " → " + table["to_segment"]
    drawn = pair.isin([" → ".join(pair) for pair in DRAWN]) & (table["measure"] == "mass") & (table["layer"] == ALL)
    return table.assign(curve=pair.where(drawn))


def _lines(episode: AttendedEpisode) -> Iterator[dict[str, Any]]:
    cue_end = _cue_end(episode.replayed)
    vision = Segment.VISION.name
    for step, tick in enumerate(episode.attention):
        since = {"since_cue": step - cue_end}
        of_layers = {ALL: tick.mass.mean(axis=0)} | dict(enumerate(tick.mass))
        for layer, mass in of_layers.items():
            for r, row in enumerate(tick.rows):
                for c, key in enumerate(tick.keys):
                    yield since | {
                        "measure": "mass",
                        "layer": layer,
                        "from_segment": row,
                        "to_segment": key,
                        "value": mass[r, c],
                        "uniform": tick.uniform[r, c],
                    }
        for row in tick.maps:
            per_patch = tick.uniform[tick.rows.index(row), tick.keys.index(vision)] / tick.rollout[row].size
            for measure, patches in (("map", tick.patches(row)), ("rollout", tick.rollout[row])):
                for (camera, patch), value in pd.DataFrame(patches).stack().items():
                    yield since | {
                        "measure": measure,
                        "layer": ALL,
                        "from_segment": row,
                        "to_segment": vision,
                        "camera": camera,
                        "patch": patch,
                        "value": value,
                        "uniform": per_patch if measure == "map" else None,
                    }


def _cue_end(replayed: ReplayedEpisode) -> int:
    episode_events = events(replayed.outcome.info)
    if "cue_end" not in episode_events:
        raise MuvlaError(
            "probe attention",
            got=f"episode seed {replayed.outcome.seed} without a cue",
            expected="a task with a cue, from which steps are counted",
            remedy="choose a protocol whose task has a cue",
        )
    return episode_events["cue_end"]


def read(subject: Subject) -> pd.DataFrame:
    """Attention between segments and on camera patches, step by step, with overlays.

    Returns the frame, and writes a sheet and a video per episode.
    """
    protocol, episodes = subject.protocol, attended(subject)
    table = frame(episodes)
    folder = subject.folder / protocol.id
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for episode in episodes:
            subject.check_stop()
            seed = episode.replayed.outcome.seed
            title = f"{protocol.task.name}, episode seed {seed}"
            sheet(episode, title).save(folder / f"{seed}.png")
            write_video(video(episode, title), folder / f"{seed}.mp4")
    return table


ATTENTION = Measurement(
    "attention",
    1,
    read,
    x="since_cue",
    y="value",
    curve="curve",
    low="low",
    high="high",
    chance="uniform",
    share=True,
    needs_memory=False,
)
