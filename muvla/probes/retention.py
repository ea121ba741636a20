"""How much of a task's content a memory stores, keeps, updates and uses, in four numbers.

The decoders are the linear probes of `muvla.probes.linear_probes`, on the memory as the tick at an event wrote it.

| measure | value |
|---|---|
| `stored` | accuracy of the decoder of the cued object at the last step of the cue |
| `updated` | accuracy of the decoder of the target at the last step that changes it (`StepInfo.update_step`) |
| `kept` | accuracy of the decoder of the target at the last step of the delay |
| `used` | share of right first choices among the episodes in which the decoder of `kept` is right |

The cued object is `StepInfo.cued`, or else the target. In RecallColor a memory can hold the cued colour alone, so
`stored`, `updated` and `kept` decode `identity` where the task has one.

Every measure stands beside two controls. `untrained` decodes the states of the policy with the cell's initial values,
in the same episodes. `shuffled` permutes the labels over the episodes. `used` has the choices of the trained policy
under every control: only the condition comes from the control's decoder.

`chance` is the share of the most frequent label, or for `used` the share of right first choices in all episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from muvla.checkpoints.build import build_policy
from muvla.errors import MuvlaError
from muvla.probes.base import Measurement, Subject
from muvla.probes.linear_probes import LEAST, PER_CLASS, episode_folds, held_out
from muvla.probes.traces import Trace, traces_of
from muvla.stats import wilson
from muvla.utils.rng import numpy_rng

EVENT_OF = {"stored": "cue_end", "updated": "update", "kept": "delay_end"}
CONTROLS = ("none", "untrained", "shuffled")


@dataclass(frozen=True)
class Decoded:
    """Held-out predictions of one label at one event."""

    right: np.ndarray  # (episodes,) bool
    chance: float
    episode: np.ndarray  # (episodes,) index into the traces


def label_of(trace: Trace, measure: str) -> int | None:
    """The content that a measure decodes, or None in an episode without a target."""
    names = ("cued", "identity", "target") if measure == "stored" else ("identity", "target")
    return next((trace.labels[name] for name in names if name in trace.labels), None)


def decode(traces: list[Trace], measure: str, shuffled: bool, check_stop: Callable[[], None]) -> Decoded | None:
    """Decode a label from the memory at an event, over the episodes that have both.

    Args:
        traces: one per episode.
        measure: a key of EVENT_OF.
        shuffled: permute the labels over the episodes.
        check_stop: called before every fold; it may raise.

    Returns:
        None where too few episodes have the event and the label, in all or of one class.
    """
    samples, labels, episodes = [], [], []
    for i, trace in enumerate(traces):
        ticks = np.flatnonzero(trace.step == trace.events.get(EVENT_OF[measure], -1))
        label = label_of(trace, measure)
        if len(ticks) and label is not None:
            samples.append(trace.memory[ticks[0]].ravel())
            labels.append(label)
            episodes.append(i)
    values, counts = np.unique(labels, return_counts=True)
    if len(labels) < LEAST or len(values) < 2 or counts.min() < PER_CLASS:
        return None
    seed = traces[0].seed
    wanted = np.array(labels)
    if shuffled:
        wanted = numpy_rng(seed, "retention labels", measure).permutation(wanted)
    held = held_out(np.stack(samples), wanted, episode_folds(wanted, seed), check_stop)
    return Decoded(held.right, counts.max() / counts.sum(), np.array(episodes))


def chose_right(trace: Trace) -> bool:
    """The first choice of the episode is right."""
    right = trace.measured.get("right")
    return trace.measured["choice"] == trace.labels["target"] if right is None else right > 0


def frame(trained: list[Trace], untrained: list[Trace], check_stop: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """Return a line per measure and control.

    Columns: `value` with `low` and `high` (95 %, Wilson), `chance`, and the `n` episodes. A measure without enough
    episodes has n = 0 and no value.

    Args:
        trained: a trace per episode of the trained policy.
        untrained: the same episodes of the policy with its initial values.
        check_stop: called before every fold; it may raise.
    """
    lines, chosen = [], np.array([chose_right(trace) for trace in trained])
    for control in CONTROLS:
        traces = untrained if control == "untrained" else trained
        for measure in EVENT_OF:
            decoded = decode(traces, measure, control == "shuffled", check_stop)
            lines.append(_line(measure, control, None if decoded is None else decoded.right, decoded))
            if measure == "kept":
                among = None if decoded is None else chosen[decoded.episode[decoded.right]]
                lines.append(_line("used", control, among, decoded) | {"chance": chosen.mean()})
    return pd.DataFrame(lines)


def _line(measure: str, control: str, hits: np.ndarray | None, decoded: Decoded | None) -> dict:
    n, count = (0, 0) if hits is None else (len(hits), int(hits.sum()))
    low, high = wilson(count, n)
    chance = np.nan if decoded is None else decoded.chance
    value = count / n if n else np.nan
    return {
        "measure": measure,
        "control": control,
        "value": value,
        "low": low,
        "high": high,
        "chance": chance,
        "n": n,
    }


def read(subject: Subject) -> pd.DataFrame:
    """Shares of episodes in which the memory stores, keeps, updates and uses what the task asks for."""
    if subject.cell is None:
        raise MuvlaError(
            "probe retention",
            got="a release, whose initial values are unknown",
            expected="a cell that was trained here",
            remedy="use the probe decoders, which has no untrained control",
        )
    trained = traces_of(subject)
    policy = build_policy(subject.cell, subject.policy.interface)
    policy = policy.to(next(subject.policy.parameters()).device).eval()
    untrained = traces_of(replace(subject, policy=policy))
    # The linear algebra library takes every core; beside another cell, that costs thirty times the time.
    with threadpool_limits(torch.get_num_threads()):
        return frame(trained, untrained, subject.check_stop)


RETENTION = Measurement(
    "retention", 1, read, x="measure", y="value", curve="control", low="low", high="high", chance="chance", share=True
)
