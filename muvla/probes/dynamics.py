"""How a memory changes along an episode, aligned at the events of its phases, over many episodes.

M_t (n, D) is the memory that tick t wrote, read from traces in half precision (`muvla.probes.traces`). All measures are
pure numbers:

| measure | per | formula | range |
|---|---|---|---|
| `norm` | token | ‖M_t,i‖₂ | ≥ 0 |
| `change` | token | 1 − cos(M_t,i, M_{t−1},i) | 0 … 2 |
| `write ratio` | memory | ‖M_t − M_{t−1}‖_F / ‖M_{t−1}‖_F | ≥ 0 |
| `participation` | memory | (Σλ)² / Σλ², λ the eigenvalues of the tokens' covariance over i = 1…n | 1 … n − 1 |

The paper shows `norm` and `change` for one episode (μVLA spec 7). The participation ratio counts the directions that
the tokens spread over (Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", 2017, there
for neurons). A measure of 0/0 has no value. The first tick has neither change nor ratio: the state before it is a
parameter, not a memory that was written.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from muvla.errors import MuvlaError
from muvla.probes.base import Measurement, Subject
from muvla.probes.means import means
from muvla.probes.traces import Trace, traces_of
from muvla.utils.io import write_atomically

WRITTEN = ("change", "write ratio")
ALL = -1  # in column `token`: the mean over tokens, or the memory as a whole


def norms(memory: np.ndarray) -> np.ndarray:
    """Return (T, n) for memory (T, n, D)."""
    return np.linalg.norm(memory, axis=-1)


def changes(memory: np.ndarray) -> np.ndarray:
    """Return (T, n), 1 − cos against the tick before; NaN at the first tick and for tokens of zeros."""
    change = np.full(memory.shape[:2], np.nan)
    dots, size = (memory[1:] * memory[:-1]).sum(-1), norms(memory)
    change[1:] = 1 - _ratio(dots, size[1:] * size[:-1])
    return np.maximum(change, 0, out=change)  # rounding may leave −1e-16


def write_ratios(memory: np.ndarray) -> np.ndarray:
    """Return (T,); NaN at the first tick and after a memory of zeros."""
    ratio = np.full(len(memory), np.nan)
    flat = memory.reshape(len(memory), -1)
    ratio[1:] = _ratio(np.linalg.norm(np.diff(flat, axis=0), axis=-1), np.linalg.norm(flat[:-1], axis=-1))
    return ratio


def participation_ratios(memory: np.ndarray) -> np.ndarray:
    """Return (T,), each tick's n tokens taken as samples of D numbers; NaN where the tokens are equal.

    With X the tokens less their mean, Σλ = tr XXᵀ and Σλ² = ‖XXᵀ‖²_F up to one factor, for every D.
    """
    centred = memory - memory.mean(axis=1, keepdims=True)
    gram = centred @ centred.transpose(0, 2, 1)
    return _ratio(np.trace(gram, axis1=1, axis2=2) ** 2, (gram**2).sum(axis=(1, 2)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def frame(traces: Iterable[Trace]) -> pd.DataFrame:
    """Return a line per measure, event, token and step since the event.

    Column `value` is the mean over the `n` episodes that have a value there; `low` and `high` are its 95 % interval of
    Student's t over episodes (none for n = 1). Column `since` counts steps since the event; `since_cue` repeats it for
    `cue_end` alone. `curve` names the two measures of change, which share an axis and are drawn over `since_cue`.

    Episodes end at different steps: late values are of longer episodes, early values of those with a longer blank or
    cue. Raises MuvlaError for episodes without any phase event.
    """
    values = pd.DataFrame(_values(traces), columns=["measure", "event", "since", "token", "value"]).dropna()
    if values.empty:
        raise MuvlaError(
            "probe dynamics",
            got="episodes without any phase event",
            expected="cue_end, delay_end or first_decision",
            remedy="choose a protocol whose task has a cue",
        )
    table = means(values, ["measure", "event", "token", "since"])
    at_cue = table["event"] == "cue_end"
    table["since_cue"] = table["since"].where(at_cue)
    table["curve"] = table["measure"].where(at_cue & (table["token"] == ALL) & table["measure"].isin(WRITTEN))
    return table


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
    """Return a PNG with a heatmap of norms and of changes per token, and every measure of the whole memory.

    The heatmaps lie over steps since the cue's end. The curves are aligned at every event and have their intervals.
    """
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
    """Size and change of the memory along an episode, aligned at phase events.

    Returns the frame, and writes its figure to `<protocol id>.png` in the measurement's folder.
    """
    table = frame(traces_of(subject))
    write_atomically(subject.folder / f"{subject.protocol.id}.png", figure(table))
    return table


DYNAMICS = Measurement("dynamics", 1, read, x="since_cue", y="value", curve="curve", low="low", high="high")
