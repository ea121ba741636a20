"""How a memory changes along an episode, aligned at the events of its phases, over many episodes.

Of the memory M_t (n, D) that tick t wrote, from traces in half precision (`muvla.probes.traces`); all are pure numbers:

| measure | per | formula | range |
|---|---|---|---|
| `norm` | token | ‖M_t,i‖₂ | ≥ 0 |
| `change` | token | 1 − cos(M_t,i, M_{t−1},i) | 0 … 2 |
| `write ratio` | memory | ‖M_t − M_{t−1}‖_F / ‖M_{t−1}‖_F | ≥ 0 |
| `participation` | memory | (Σλ)² / Σλ², λ the eigenvalues of the tokens' covariance over i = 1…n | 1 … n − 1 |

`norm` and `change` are those that the paper shows of one episode (μVLA spec 7). The participation ratio counts the
directions that the tokens spread over (Gao et al., "A theory of multineuronal dimensionality, dynamics and
measurement", 2017, there of neurons). A measure has no value where it is 0/0, and the first tick has neither change nor
ratio: before it there is a parameter, not a memory that was written.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import t as student

from muvla.errors import MuvlaError
from muvla.probes.base import Measurement, Subject
from muvla.probes.traces import Trace, traces_of
from muvla.utils.io import write_atomically

CONFIDENCE = 0.95
WRITTEN = ("change", "write ratio")
ALL = -1  # in column `token`: the mean over tokens, or of the memory as a whole


def norms(memory: np.ndarray) -> np.ndarray:
    """(T, n) from memory (T, n, D)."""
    return np.linalg.norm(memory, axis=-1)


def changes(memory: np.ndarray) -> np.ndarray:
    """(T, n), 1 − cos against the tick before; NaN at the first tick and for tokens of zeros."""
    found = np.full(memory.shape[:2], np.nan)
    dots, size = (memory[1:] * memory[:-1]).sum(-1), norms(memory)
    found[1:] = 1 - _ratio(dots, size[1:] * size[:-1])
    return np.maximum(found, 0, out=found)  # rounding may leave −1e-16


def write_ratios(memory: np.ndarray) -> np.ndarray:
    """(T,); NaN at the first tick and after a memory of zeros."""
    found = np.full(len(memory), np.nan)
    flat = memory.reshape(len(memory), -1)
    found[1:] = _ratio(np.linalg.norm(np.diff(flat, axis=0), axis=-1), np.linalg.norm(flat[:-1], axis=-1))
    return found


def participation_ratios(memory: np.ndarray) -> np.ndarray:
    """(T,), of each tick's n tokens as samples of D numbers; NaN where they do not differ.

    With X the tokens less their mean, Σλ = tr XXᵀ and Σλ² = ‖XXᵀ‖²_F up to the same factor, whatever D is."""
    centred = memory - memory.mean(axis=1, keepdims=True)
    gram = centred @ centred.transpose(0, 2, 1)
    return _ratio(np.trace(gram, axis1=1, axis2=2) ** 2, (gram**2).sum(axis=(1, 2)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def frame(traces: Iterable[Trace]) -> pd.DataFrame:
    """A line per measure, event, step since it, and token: `value` is the mean over the `n` episodes that have a value
    there, `low` and `high` its 95 % interval of Student's t over episodes (none for n = 1).

    Column `since` counts steps since `event`'s; `since_cue` repeats it for `cue_end` alone, and `curve` names the two
    measures of how much is written there, which share an axis, so that a drawing over `since_cue` shows these. Episodes
    end at different steps: late values are of those that went on, early ones of those with a longer blank or cue."""
    found = pd.DataFrame(_values(traces), columns=["measure", "event", "since", "token", "value"]).dropna()
    if found.empty:
        raise MuvlaError(
            "probe dynamics",
            got="episodes without any phase event",
            expected="cue_end, delay_end or first_decision",
            remedy="read a protocol whose task has a cue",
        )
    grouped = found.groupby(["measure", "event", "token", "since"])["value"]
    table = grouped.agg(value="mean", spread="std", n="count").reset_index()
    half = student.ppf((1 + CONFIDENCE) / 2, table["n"] - 1) * table["spread"] / np.sqrt(table["n"])
    table["low"], table["high"] = table["value"] - half, table["value"] + half
    at_cue = table["event"] == "cue_end"
    table["since_cue"] = table["since"].where(at_cue)
    table["curve"] = table["measure"].where(at_cue & (table["token"] == ALL) & table["measure"].isin(WRITTEN))
    return table.drop(columns="spread")


def _values(traces: Iterable[Trace]) -> Iterator[tuple[str, str, int, int, float]]:
    for trace in traces:
        memory = trace.memory.astype(np.float64)
        of_tokens = {"norm": norms(memory), "change": changes(memory)}
        of_all = {name: values.mean(axis=1) for name, values in of_tokens.items()}
        of_all |= {"write ratio": write_ratios(memory), "participation": participation_ratios(memory)}
        for event, at in trace.events.items():
            for t, since in enumerate((trace.step - at).tolist()):
                for name, values in of_all.items():
                    yield name, event, since, ALL, values[t]
                for name, values in of_tokens.items():
                    for token, value in enumerate(values[t]):
                        yield name, event, since, token, value


def figure(table: pd.DataFrame) -> bytes:
    """A PNG: the tokens' norms and changes as heatmaps over steps since the cue's end, and every measure of the whole
    memory at every event, with its interval."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(15, 7), layout="constrained")
    drawn.suptitle("mean over episodes, with its 95 % interval")
    axes = drawn.subplots(2, 3)
    tokens = table[(table["event"] == table["event"].iloc[0]) & (table["token"] != ALL)]
    for axis, measure in zip(axes[:, 0], ("norm", "change"), strict=True):
        of = tokens[tokens["measure"] == measure].pivot(index="token", columns="since", values="value")
        steps, rows = of.columns.to_numpy(), of.index.to_numpy()
        image = axis.pcolormesh(steps, rows, of.to_numpy(), shading="nearest")
        drawn.colorbar(image, ax=axis)
        axis.set(title=f"{measure} per token", ylabel="token", xlabel=f"steps since {tokens['event'].iloc[0]}")
    for axis, measure in zip(axes[:, 1:].flat, ("change", "write ratio", "norm", "participation"), strict=True):
        of_all = table[(table["measure"] == measure) & (table["token"] == ALL)]
        for event, lines in of_all.groupby("event", sort=False):
            axis.plot(lines["since"], lines["value"], marker=".", label=event)
            axis.fill_between(lines["since"], lines["low"], lines["high"], alpha=0.2)
        axis.set(title=measure, xlabel="steps since the event")
        axis.legend()
    content = io.BytesIO()
    drawn.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def read(subject: Subject) -> pd.DataFrame:
    """The frame; its figure goes to `<protocol id>.png` in the reading's folder."""
    table = frame(traces_of(subject))
    write_atomically(subject.folder / f"{subject.protocol.id}.png", figure(table))
    return table


DYNAMICS = Measurement("dynamics", 1, read, x="since_cue", y="value", curve="curve", low="low", high="high")
