"""What can be read out of a memory by a linear probe, step by step since the cue.

A probe is scikit-learn's StandardScaler and LogisticRegression on the numbers of the memory that a tick wrote, from
traces in half precision (`muvla.probes.traces`). Whole episodes are held out: of 5 folds of episodes each is predicted
by a probe that saw none of its ticks, and whose regulariser was chosen among `CS` by the held-out log loss inside its
own training folds, by episodes again.

| label | classes | probe |
|---|---|---|
| `target` | the episode's: of RecallPosition and RecallColor a place, of RememberColor a colour | one per step |
| `identity` | the cued colour, where a task tells it apart from the target's place (RecallColor) | one per step |
| `phase` | of the tick | one for all ticks |
| `steps since cue` | before its end; 0, 1, 2, 3, 4; 5-8, 9-16, … | one for all ticks |

`value` is the share of held-out episodes that are predicted rightly at that step, with its Wilson interval. `chance` is
what the same kind of probe, told nothing, gets at that step: it always answers the class that is most frequent among
the samples that it is for. Of a probe per step these are that step's, and `chance` is the share of their most frequent
label. Of a probe for all ticks they are all ticks, and `chance` is the share of that step's ticks that have the class
which is most frequent among all of them: 1 where all of them have it, 0 where none has. `bits`
bounds from below what the memory tells of the label, as H(Y) − CE with the probe's held-out cross entropy (Barber and
Agakov, "The IM algorithm", 2003): the mean over episodes of log₂ q(y | M) − log₂ p(y), p the shares of the labels that
the probe is for. At one step of a probe for all ticks it is that step's part of the bound, whose mean over all ticks is
the bound. A bad probe makes it loose, and a constant one 0 or, by the noise of its training, a little less.

Legend: n samples, p numbers of the memory, E episodes, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from muvla.errors import MuvlaError
from muvla.probes.base import Measurement, Subject
from muvla.probes.traces import LABELS, Trace, traces_of
from muvla.utils.rng import numpy_rng

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
    """(E,) fold of every episode: a keyed order, dealt class by class. Else a probe that knows but the labels' shares
    is below chance: what is frequent among the others is rare in the fold."""
    order = numpy_rng(seed, "decoder folds").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def held_out(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, check_stop: Callable[[], None] = lambda: None
) -> Held:
    """Of features (n, p), labels (n,) and the fold (n,) of each sample's episode. `check_stop` is called before each
    fold, and may raise."""
    classes, labels = np.unique(labels, return_inverse=True)
    log_q, n = np.empty((len(labels), len(classes))), np.arange(len(labels))
    for fold in range(FOLDS):
        check_stop()
        others = (fold + 1 + np.arange(FOLDS - 1)) % FOLDS
        inner = [
            _Split.of(features, labels, np.isin(folds, others[others != held]), folds == held)
            for held in others[:INNER]
        ]
        outer = _Split.of(features, labels, folds != fold, folds == fold)
        log_q[folds == fold] = outer.log_probabilities(_best(inner, len(classes)), len(classes))
    log_p = np.log(np.bincount(labels) / len(labels))
    return Held(log_q.argmax(1) == labels, (log_q[n, labels] - log_p[labels]) / np.log(2))


def _best(splits: list[_Split], classes: int) -> float:
    """The inverse strength with the best held-out log likelihood, up to the first that is worse than the one before:
    what does not generalise under a strong penalty takes longest to fit under a weak one."""
    best, score = CS[0], -np.inf
    for strength in CS:
        now = sum(split.log_likelihood(strength, classes) for split in splits)
        if now < score:
            break
        best, score = strength, now
    return best


@dataclass(frozen=True)
class _Split:
    """Standardised features of the samples to learn from, and of those to predict."""

    near: np.ndarray  # (n, p), or the same probe in fewer numbers
    near_labels: np.ndarray  # (n,) in 0 … C − 1
    far: np.ndarray
    far_labels: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> _Split:
        scaler = StandardScaler().fit(features[train])
        near, far = _rotated(scaler.transform(features[train]), scaler.transform(features[test]))
        return cls(near, labels[train], far, labels[test])

    def log_probabilities(self, strength: float, classes: int) -> np.ndarray:
        """(n of far, C) natural logarithms, none below that of 1e-12."""
        own, found = np.unique(self.near_labels), np.zeros((len(self.far), classes))
        if len(own) == 1:
            found[:, own] = 1
        else:
            probe = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
            with warnings.catch_warnings():  # a class that is set apart, under a weak penalty: it is judged held out
                warnings.simplefilter("ignore", ConvergenceWarning)
                found[:, own] = probe.fit(self.near, self.near_labels).predict_proba(self.far)
        return np.log(np.maximum(found, 1e-12))

    def log_likelihood(self, strength: float, classes: int) -> float:
        return float(self.log_probabilities(strength, classes)[np.arange(len(self.far)), self.far_labels].sum())


def _rotated(near: np.ndarray, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same probe in fewer numbers. With fewer samples than features, the weights of a probe with an L2 penalty lie
    in the span of the training samples: (n, p) becomes (n, rank), and what is at right angles to it tells the probe
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
    seed: int  # keys every draw

    @classmethod
    def of(cls, traces: list[Trace]) -> Ticks:
        """Raises MuvlaError for episodes without a cue, or too few."""
        traces = [trace for trace in traces if "cue_end" in trace.events]
        if len(traces) < LEAST:
            raise MuvlaError(
                "probe decoders",
                got=f"{len(traces)} episodes with a cue",
                expected=f"at least {LEAST}",
                remedy="read a protocol whose task has a cue, with more episodes",
            )
        names = [name for name in LABELS if all(name in trace.labels for trace in traces)]
        labels = {name: np.array([trace.labels[name] for trace in traces]) for name in names}
        return cls(
            memory=np.concatenate([trace.memory.reshape(len(trace.step), -1) for trace in traces]),
            episode=np.repeat(np.arange(len(traces)), [len(trace.step) for trace in traces]),
            since=np.concatenate([trace.step - trace.events["cue_end"] for trace in traces]),
            phase=np.concatenate([trace.phase for trace in traces]),
            labels=labels,
            seed=traces[0].seed,
        )

    def at(self, since: int) -> np.ndarray:
        return np.flatnonzero(self.since == since)


def since_classes(since: np.ndarray) -> np.ndarray:
    """BEFORE, 0 … 4, and from 5 on a class per doubling: 5 for 5-8, 6 for 9-16, …"""
    doubled = 3 + np.ceil(np.log2(np.maximum(since, 1))).astype(int) - 1
    return np.where(since < 0, BEFORE, np.where(since < 5, since, doubled))


def frame(traces: list[Trace], check_stop: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """A line per label, control and step since the cue: `value` with `low` and `high`, `bits` with theirs (95 %,
    Student's t over episodes), the `n` episodes at that step, and `chance`, a constant answer's `value`. `control` is
    "shuffled" where labels were permuted over episodes, of a label of ticks over ticks. A step with too few episodes,
    in all or of a class, has n alone. `check_stop` is called before every fold of every probe, and may raise."""
    ticks = Ticks.of(traces)
    lines = []
    for control in ("none", "shuffled"):
        for label, values in ticks.labels.items():
            lines += _of_episodes(ticks, label, _order(ticks, values, label, control), control, check_stop)
        for label, values in (("phase", ticks.phase), ("steps since cue", since_classes(ticks.since))):
            lines += _of_ticks(ticks, label, _order(ticks, values, label, control), control, check_stop)
    return pd.DataFrame(lines)


def _order(ticks: Ticks, values: np.ndarray, label: str, control: str) -> np.ndarray:
    if control == "none":
        return values
    return numpy_rng(ticks.seed, "decoder labels", label).permutation(values)


def _of_episodes(
    ticks: Ticks, label: str, values: np.ndarray, control: str, check_stop: Callable[[], None]
) -> Iterator[dict]:
    """A probe for every step."""
    for since in np.unique(ticks.since).tolist():
        at = ticks.at(since)
        own = values[ticks.episode[at]]
        _, counts = np.unique(own, return_counts=True)
        if len(at) < LEAST or len(counts) < 2 or counts.min() < PER_CLASS:
            yield _line(label, control, since, len(at))
            continue
        held = held_out(ticks.memory[at], own, episode_folds(own, ticks.seed), check_stop)
        yield _line(label, control, since, len(at), held, counts.max() / len(at))


def _of_ticks(
    ticks: Ticks, label: str, values: np.ndarray, control: str, check_stop: Callable[[], None]
) -> Iterator[dict]:
    """A probe for all ticks, looked at step by step."""
    classes, counts = np.unique(values, return_counts=True)
    constant = values == classes[counts.argmax()]  # (n,) where that answer is right
    folds = episode_folds(np.zeros(ticks.episode.max() + 1), ticks.seed)[ticks.episode]
    held = held_out(ticks.memory, values, folds, check_stop) if len(counts) > 1 else None
    for since in np.unique(ticks.since).tolist():
        at = ticks.at(since)
        if held is None or len(at) < LEAST:
            yield _line(label, control, since, len(at))
            continue
        yield _line(label, control, since, len(at), Held(held.right[at], held.bits[at]), constant[at].mean())


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
    traces = traces_of(subject)
    # The linear algebra library takes every core by itself; beside another cell that costs thirty times the time.
    with threadpool_limits(torch.get_num_threads()):
        return frame(traces, subject.check_stop)


DECODERS = Measurement(
    "decoders", 2, read, x="since_cue", y="value", curve="curve", low="low", high="high", chance="chance", share=True
)
