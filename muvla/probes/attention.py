"""Where a policy looks along an episode: attention mass between segments, maps on the cameras' patches, overlays.

Legend: E episodes, T steps, L layers, V cameras, P patches, R kinds of rows, C kinds of keys.

Episodes are the protocol's own, at its batch shape; attention is that of their ticks (`muvla.probes.attention_maps`),
averaged over heads. Beside the frame, every episode leaves a sheet and a video in `<folder>/<protocol id>/`
(`muvla.probes.attention_overlay`).
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
from muvla.probes.attention_maps import ACTION_READ, Attention, Maps, watching
from muvla.probes.attention_overlay import AttendedEpisode, sheet, video
from muvla.probes.base import Measurement, Subject
from muvla.probes.means import means
from muvla.utils.io import disk_errors

ALL = -1  # in column `layer`: the mean over layers
# The pairs that a report draws, averaged over layers; all others are in the frame.
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
    with watching(policy, recorder.maps):
        episodes = replay(actor, subject.open_env, subject.seeds, environments, subject.check_stop, [recorder])
    return [AttendedEpisode(policy, replayed, recorder.attention[seed]) for seed, replayed in episodes.items()]


def frame(episodes: list[AttendedEpisode]) -> pd.DataFrame:
    """A line per measure, layer (−1 is their mean), pair and step since the cue: `value` is the mean over the `n`
    episodes that have that step, with its interval.

    `measure` is `mass`: the share of a row's attention that falls on a segment, `uniform` what it would be were all
    allowed keys attended to alike; `map`: on one patch of one camera, averaged over layers; `rollout`: the same of
    attention rollout. ACTION_READ are the rows that the action head reads. `curve` names the pairs that are drawn.
    """
    found = pd.DataFrame([line for one in episodes for line in _lines(one)])
    at = found[KEYS].fillna(ALL)  # no camera and no patch are a group too
    table = means(at.assign(value=found["value"]), KEYS)
    uniform = at.assign(value=found["uniform"]).groupby(KEYS)["value"].mean().rename("uniform")
    table = table.merge(uniform.reset_index(), on=KEYS)
    for column in ("camera", "patch"):
        table[column] = table[column].astype(int).where(table["measure"] != "mass").astype("Int64")
    pair = table["from_segment"] + " → " + table["to_segment"]
    drawn = pair.isin([" → ".join(pair) for pair in DRAWN]) & (table["measure"] == "mass") & (table["layer"] == ALL)
    return table.assign(curve=pair.where(drawn))


def _lines(one: AttendedEpisode) -> Iterator[dict[str, Any]]:
    cue_end = _cue_end(one.replayed)
    vision = Segment.VISION.name
    for step, tick in enumerate(one.attention):
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
    known = events(replayed.outcome.info)
    if "cue_end" not in known:
        raise MuvlaError(
            "probe attention",
            got=f"episode seed {replayed.outcome.seed} without a cue",
            expected="a task with a cue, which steps are counted from",
            remedy="read a protocol whose task has one",
        )
    return known["cue_end"]


def read(subject: Subject) -> pd.DataFrame:
    protocol, episodes = subject.protocol, attended(subject)
    table = frame(episodes)
    folder = subject.folder / protocol.id
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for one in episodes:
            subject.check_stop()
            title = f"{protocol.task.name}, episode seed {one.replayed.outcome.seed}"
            sheet(one, title).save(folder / f"{one.replayed.outcome.seed}.png")
            write_video(video(one, title), folder / f"{one.replayed.outcome.seed}.mp4")
    return table


READING = Measurement(
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
