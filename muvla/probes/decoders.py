"""What can be read out of a memory by a linear probe, step by step since the cue.

A probe is scikit-learn's StandardScaler and LogisticRegression on the numbers of the memory that a tick wrote, from
traces in half precision (`muvla.probes.traces`). Whole episodes are held out: of 5 folds of episodes each is predicted by
a probe that saw none of its ticks, and whose regulariser was chosen among `CS` by the held-out log loss inside its own
training folds, by episodes again.

| label | classes | probe |
|---|---|---|
| `target` | what the episode's `target` is: of RecallPosition and RecallColor a place, of RememberColor a colour | one per step |
| `identity` | the cued colour, where the task tells it apart from the target's place (RecallColor) | one per step |
| `phase` | of the tick | one for all ticks |
| `steps since cue` | before its end; 0, 1, 2, 3, 4; 5-8, 9-16, … | one for all ticks |

`value` is the share of held-out episodes that are predicted rightly at that step, with its Wilson interval. `bits` bounds
from below what the memory tells of the label, as H(Y) − CE with the probe's held-out cross entropy (Barber and Agakov,
"The IM algorithm", 2003): the mean over episodes of log₂ q(y | M) − log₂ p(y), p the shares of the labels that the probe
is for. A bad probe makes it loose, and a constant one 0 or, by the noise of its training, a little less.

Legend: n samples, p numbers of the memory, E episodes, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from muvla.errors import MuvlaError
from muvla.probes.base import Reading, Subject
from muvla.probes.traces import LABELS, Trace, traces_of
from muvla.randomness import numpy_rng

FOLDS = 5
INNER = 2  # of the other folds, that choose the regulariser
CS = (1e-4, 1e-2, 1.0, 100.0)  # inverse strength of the L2 penalty
LEAST = 4 * FOLDS  # episodes at a step, and
PER_CLASS = 2 * FOLDS  # of every class there: with fewer, the step has no value
CONFIDENCE = 0.95
SHUFFLED = ", labels shuffled"
BEFORE = -1  # class of `steps since cue` until the cue's last step


@dataclass(frozen=True)
class Held:
    """Held-out predictions of n samples."""

    right: np.ndarray  # (n,) bool
    bits: np.ndarray  # (n,) log₂ q(y | M) − log₂ p(y)


def episode_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """(E,) fold of every episode: a keyed order, dealt class by class."""
    order = numpy_rng(seed, "decoder folds").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def held_out(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> Held:
    """Of features (n, p), labels (n,) and the fold (n,) of each sample's episode."""
    classes, labels = np.unique(labels, return_inverse=True)
    log_q, n = np.empty((len(labels), len(classes))), np.arange(len(labels))
    for fold in range(FOLDS):
        best = CS[int(np.argmax(_inner_scores(features, labels, folds, fold, len(classes))))]
        test = folds == fold
        log_q[test] = next(_log_probabilities(features, labels, ~test, test, len(classes), (best,)))
    log_p = np.log(np.bincount(labels) / len(labels))
    return Held(log_q.argmax(1) == labels, (log_q[n, labels] - log_p[labels]) / np.log(2))


def _inner_scores(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, outer: int, classes: int) -> np.ndarray:
    """(CS,) held-out log likelihood, each of the next folds held out in turn, without any of fold `outer`."""
    scores = np.zeros(len(CS))
    for inner in ((outer + 1 + i) % FOLDS for i in range(INNER)):
        train, test = (folds != outer) & (folds != inner), folds == inner
        for i, log_q in enumerate(_log_probabilities(features, labels, train, test, classes, CS)):
            scores[i] += log_q[np.arange(len(log_q)), labels[test]].sum()
    return scores


def _log_probabilities(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, classes: int, strengths: tuple
) -> Iterator[np.ndarray]:
    """(n of test, C) for each C of `strengths`, of probes fitted on `train`."""
    scaler = StandardScaler().fit(features[train])
    near, far = _rotated(scaler.transform(features[train]), scaler.transform(features[test]))
    own = np.unique(labels[train])
    for strength in strengths:
        found = np.full((len(far), classes), np.log(1e-12))  # of a class that the training folds lack
        if len(own) == 1:
            found[:, own] = 0.0
        else:
            probe = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
            with warnings.catch_warnings():  # a separable class under a weak penalty: what was found is judged held out
                warnings.simplefilter("ignore", ConvergenceWarning)
                found[:, own] = np.maximum(probe.fit(near, labels[train]).predict_log_proba(far), np.log(1e-12))
        yield found


def _rotated(near: np.ndarray, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same probe in fewer numbers. With fewer samples than features, the weights of a probe with an L2 penalty lie in
    the span of the training samples: (n, p) becomes (n, rank), and what is at right angles to it tells the probe
    nothing."""
    if near.shape[1] <= near.shape[0]:
        return near, far
    values, vectors = np.linalg.eigh(near @ near.T)
    kept = values > values[-1] * 1e-10
    if not kept.any():  # nothing varies
        return near[:, :1], far[:, :1]
    scale = np.sqrt(values[kept])
    return vectors[:, kept] * scale, far @ near.T @ vectors[:, kept] / scale


# --- of traces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticks:
    """The ticks of E episodes with a cue, one below the other."""

    memory: np.ndarray  # (n, p) float32
    episode: np.ndarray  # (n,) index into the episodes
    since: np.ndarray  # (n,) steps since the cue's last step
    phase: np.ndarray  # (n,)
    labels: dict[str, np.ndarray]  # of episodes (E,)
    folds: np.ndarray  # (E,)
    seed: int  # keys every draw

    @classmethod
    def of(cls, traces: list[Trace]) -> Ticks:
        """Raises MuvlaError for episodes without a cue, or too few."""
        traces = [trace for trace in traces if "cue_end" in trace.events]
        if len(traces) < LEAST:
            raise MuvlaError(
                "probe decoders", got=f"{len(traces)} episodes with a cue", expected=f"at least {LEAST}",
                remedy="read a protocol whose task has a cue, with more episodes",
            )  # fmt: skip
        names = [name for name in LABELS if all(name in trace.labels for trace in traces)]
        labels = {name: np.array([trace.labels[name] for trace in traces]) for name in names}
        first = labels[names[0]] if names else np.zeros(len(traces), int)
        return cls(
            memory=np.concatenate([trace.memory.reshape(len(trace.step), -1) for trace in traces]),
            episode=np.repeat(np.arange(len(traces)), [len(trace.step) for trace in traces]),
            since=np.concatenate([trace.step - trace.events["cue_end"] for trace in traces]),
            phase=np.concatenate([trace.phase for trace in traces]),
            labels=labels,
            folds=episode_folds(first, traces[0].seed),
            seed=traces[0].seed,
        )

    def at(self, since: int) -> np.ndarray:
        return np.flatnonzero(self.since == since)


def since_classes(since: np.ndarray) -> np.ndarray:
    """BEFORE, 0 … 4, and from 5 on a class per doubling: 5 for 5-8, 6 for 9-16, …"""
    doubled = 3 + np.ceil(np.log2(np.maximum(since, 1))).astype(int) - 1
    return np.where(since < 0, BEFORE, np.where(since < 5, since, doubled))


def frame(traces: list[Trace]) -> pd.DataFrame:
    """A line per label, control and step since the cue: `value` with `low` and `high`, `bits` with theirs (95 %,
    Student's t over episodes), the `n` episodes at that step, and as `chance` what the most frequent label scores there:
    of a label of ticks, the most frequent of all ticks. `control` is "shuffled" where labels were permuted over
    episodes, of a label of ticks over ticks. A step with too few episodes, in all or of a class, has n alone."""
    ticks = Ticks.of(traces)
    lines = []
    for control in ("none", "shuffled"):
        for label, values in ticks.labels.items():
            lines += _of_episodes(ticks, label, _order(ticks, values, label, control), control)
        for label, values in (("phase", ticks.phase), ("steps since cue", since_classes(ticks.since))):
            lines += _of_ticks(ticks, label, _order(ticks, values, label, control), control)
    return pd.DataFrame(lines)


def _order(ticks: Ticks, values: np.ndarray, label: str, control: str) -> np.ndarray:
    if control == "none":
        return values
    return numpy_rng(ticks.seed, "decoder labels", label).permutation(values)


def _of_episodes(ticks: Ticks, label: str, values: np.ndarray, control: str) -> Iterator[dict]:
    """A probe for every step."""
    for since in np.unique(ticks.since).tolist():
        at = ticks.at(since)
        episodes = ticks.episode[at]
        own = values[episodes]
        _, counts = np.unique(own, return_counts=True)
        if len(at) < LEAST or len(counts) < 2 or counts.min() < PER_CLASS:
            yield _line(label, control, since, len(at))
            continue
        held = held_out(ticks.memory[at], own, ticks.folds[episodes])
        yield _line(label, control, since, len(at), held, counts.max() / len(at))


def _of_ticks(ticks: Ticks, label: str, values: np.ndarray, control: str) -> Iterator[dict]:
    """A probe for all ticks, looked at step by step."""
    classes, counts = np.unique(values, return_counts=True)
    held = held_out(ticks.memory, values, ticks.folds[ticks.episode]) if len(classes) > 1 else None
    for since in np.unique(ticks.since).tolist():
        at = ticks.at(since)
        if held is None or len(at) < LEAST:
            yield _line(label, control, since, len(at))
            continue
        chance = float((values[at] == classes[counts.argmax()]).mean())
        yield _line(label, control, since, len(at), Held(held.right[at], held.bits[at]), chance)


def _line(label: str, control: str, since: int, n: int, held: Held | None = None, chance: float = np.nan) -> dict:
    empty = dict.fromkeys(("value", "low", "high", "bits", "bits_low", "bits_high"), np.nan)
    name = label + SHUFFLED * (control == "shuffled")
    line = {"label": label, "control": control, "curve": name, "since_cue": since, "n": n, "chance": chance} | empty
    if held is None:
        return line
    right, bits = int(held.right.sum()), float(held.bits.mean())
    wilson = binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    half = student.ppf((1 + CONFIDENCE) / 2, n - 1) * held.bits.std(ddof=1) / np.sqrt(n)
    line |= {"value": right / n, "low": wilson.low, "high": wilson.high}
    return line | {"bits": bits, "bits_low": bits - half, "bits_high": bits + half}


def read(subject: Subject) -> pd.DataFrame:
    return frame(traces_of(subject))


DECODERS = Reading(
    "decoders", 1, read, x="since_cue", y="value", curve="curve", low="low", high="high", chance="chance"
)
