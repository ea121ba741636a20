"""How a store is searched along an episode: attention on its entries, gates, entries alive and merges.

Every tick searches the store that earlier ticks wrote. An entry's time is the step that wrote it; a merged entry has
the time that the mechanism gives it. The phase of an entry is the phase of that step.

Legend: L entries, s streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from muvla.envs.phases import Phase, events
from muvla.errors import MuvlaError
from muvla.evaluation.actor import Tick
from muvla.evaluation.context import default_workers
from muvla.evaluation.episode import Outcome, RunningEpisode
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.replay import replay
from muvla.memory.base import Memory
from muvla.probes.base import Measurement, Subject
from muvla.probes.means import means
from muvla.recurrence import Recurrence

KEYS = ["measure", "stream", "phase", "age", "since_cue"]
NONE = -1  # in column `age`: the measure has no age


class SearchRecorder(Recorder):
    """Records the search of every tick: a line per measure, stream and group of entries."""

    def __init__(self, recurrence: Recurrence):
        self.recurrence = recurrence
        self.lines: list[dict[str, Any]] = []
        self._phases: dict[int, dict[int, Phase]] = {}  # seed → step of a tick → phase
        self._ticks: dict[int, list[dict[str, Any]]] = {}

    def episode_begins(self, episode: RunningEpisode) -> None:
        self._phases[episode.seed], self._ticks[episode.seed] = {}, []

    def after_tick(self, tick: Tick) -> None:
        episode = tick.episode
        phases = self._phases[episode.seed]
        for line in self._lines(episode, list(phases)):
            since = episode.step - events(episode.info).get("cue_end", 0)
            phase = line.pop("at", None)
            named = "" if phase is None else phases[phase].name if phase in phases else Phase.UNKNOWN.name
            self._ticks[episode.seed].append({"phase": named, "age": NONE, "since_cue": since, **line})
        phases[episode.step] = Phase(episode.info["phase"])

    def episode_ends(self, episode: RunningEpisode, outcome: Outcome) -> None:
        ticks = self._ticks.pop(outcome.seed)
        self.lines += [] if outcome.error else [{"seed": outcome.seed, **line} for line in ticks]

    def _lines(self, episode: RunningEpisode, steps: list[int]) -> Iterator[dict[str, Any]]:
        """Lines of one tick; `at` is the step that wrote the entry."""
        recurrence, slot = self.recurrence, episode.index
        memory, state = recurrence.memory, {name: leaf[slot] for name, leaf in recurrence.read_state.items()}
        search = recurrence.read.retrieved if recurrence.retrieved is None else recurrence.retrieved
        alive = memory.valid_units(state).cpu().numpy()
        for i, leaf in enumerate(memory.units.times):
            stream = leaf.rpartition("_")[0]
            times = state[leaf].cpu().numpy()[alive]
            mass = search.attention[slot, i].float().mean(dim=0).cpu().numpy()[: len(alive)][alive]
            yield {"measure": "gate", "stream": stream, "value": float(search.gates[slot, i])}
            yield {"measure": "alive", "stream": stream, "value": int(alive.sum())}
            if memory.units.counts:
                counts = state[memory.units.counts[i]].cpu().numpy()[alive]
                yield {"measure": "merges", "stream": stream, "value": int(counts.sum() - alive.sum())}
            for time, share in zip(times, mass, strict=True):
                at = int(time) if memory.config.searched_times == "step" else steps[int(time)]
                yield {
                    "measure": "mass",
                    "stream": stream,
                    "at": at,
                    "age": episode.step - at,
                    "value": float(share),
                    "uniform": 1 / len(times),
                }


def frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Means over episodes, as `read` returns them.

    Args:
        lines: of `SearchRecorder`, at least one.
    """
    table = pd.DataFrame(lines)
    if "uniform" not in table:
        table["uniform"] = np.nan
    is_mass = table["measure"] == "mass"
    by_age = table[is_mass].assign(measure="mass by age", phase="", since_cue=0)
    by_age = by_age.groupby(["seed", *KEYS], as_index=False)[["value", "uniform"]].mean()
    by_phase = table.assign(age=NONE).groupby(["seed", *KEYS], as_index=False)[["value", "uniform"]].sum(min_count=1)
    table = pd.concat([by_phase, by_age], ignore_index=True)
    uniform = table.groupby(KEYS, as_index=False)["uniform"].mean()
    table = means(table, KEYS).merge(uniform, on=KEYS)
    curve = table["stream"] + ": " + table["phase"]
    return table.assign(curve=curve.where(table["measure"] == "mass"))


def read(subject: Subject) -> pd.DataFrame:
    """A line per measure, stream, phase and age of entries, and step since the cue.

    `value` is the mean over the `n` episodes with a value, with the interval of the mean. `uniform` is the value under
    equal attention to all entries.

    | measure | value |
    |---|---|
    | `mass` | attention on the entries of a phase |
    | `mass by age` | attention per entry of an age, over all ticks |
    | `gate` | mean share of the query in the fused tokens |
    | `alive` | entries |
    | `merges` | writes that share an entry with an older write |

    Raises:
        MuvlaError: the mechanism searches no entries with times.
    """
    _require_times(subject.policy.memory)
    protocol = subject.protocol
    actor = PolicyActor(subject.policy, subject.statistics, protocol)
    recorder = SearchRecorder(actor.recurrence)
    environments = min(default_workers(protocol), protocol.slots, len(subject.seeds))
    replay(actor, subject.open_env, subject.seeds, environments, subject.check_stop, [recorder])
    return frame(recorder.lines)


def _require_times(memory: Memory) -> None:
    if not (memory.has_state and memory.config.searched_times):
        raise MuvlaError(
            "probe retrieval",
            got=f"the mechanism {memory.config.kind}",
            expected="a mechanism that searches entries with times, such as bank",
            remedy="leave this probe out for the cell",
        )


RETRIEVAL = Measurement(
    "retrieval",
    1,
    read,
    x="since_cue",
    y="value",
    curve="curve",
    low="low",
    high="high",
    chance="uniform",
    share=True,
    needs_times=True,
)
