"""How much of a label a linear probe decodes from a memory, step by step since the cue.

A linear probe is scikit-learn's StandardScaler and LogisticRegression on the numbers of the memory that a tick wrote,
read from traces in half precision (`muvla.probes.traces`). Whole episodes are held out in 5 folds. A fold is predicted
by a probe that saw none of its ticks. The probe's regulariser is chosen among `CS` by the held-out log loss inside the
probe's training folds, again by episodes.

| label | classes | probe |
|---|---|---|
| `target` | the episode's: a place in RecallPosition and RecallColor, a colour in RememberColor | one per step |
| `identity` | the cued colour, where a task separates it from the target's place (RecallColor) | one per step |
| `phase` | the tick's | one for all ticks |
| `steps since cue` | before its end; 0, 1, 2, 3, 4; 5-8, 9-16, … | one for all ticks |

`value` is the share of held-out episodes predicted correctly at that step, with its Wilson interval.

`chance` is the score at that step of a constant probe, which always answers the most frequent class of its samples. The
samples of a probe per step are that step's episodes: `chance` is the share of the most frequent label. The samples of a
probe for all ticks are all ticks: `chance` is the share of that step's ticks that have the most frequent class. It is 1
where all of them have the class, and 0 where none has.

`bits` bounds from below what the memory tells about the label: H(Y) − CE, CE the probe's held-out cross entropy (Barber
and Agakov, "The IM algorithm", 2003). It is the mean over episodes of log₂ q(y | M) − log₂ p(y), where p are the shares
of the labels among the probe's samples. For a probe of all ticks, the bound is the mean over all ticks, and a step
shows its part. A bad probe makes the bound loose. A constant probe gives 0 or, by training noise, a little less.

Legend: n samples, p numbers of the memory, E episodes, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from muvla.errors import MuvlaError
from muvla.probes.base import Measurement, Subject
from muvla.probes.traces import LABELS, Trace, traces_of
from muvla.stats import student_interval, wilson
from muvla.utils.rng import numpy_rng

FOLDS = 5
INNER = 2  # folds, among the others, whose episodes choose the regulariser
CS = (1e-4, 1e-2, 1.0, 100.0)  # inverse strength of the L2 penalty
# A step with fewer episodes than LEAST, or than PER_CLASS of a class, has no value.
LEAST = 4 * FOLDS
PER_CLASS = 2 * FOLDS
SHUFFLED = ", labels shuffled"
BEFORE = -1  # class of `steps since cue` until the cue's last step


@dataclass(frozen=True)
class Held:
    """Held-out predictions of n samples."""

    right: np.ndarray  # (n,) bool
    bits: np.ndarray  # (n,) log₂ q(y | M) − log₂ p(y)


def episode_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold (E,) of every episode: a keyed order, dealt class by class.

    In folds with other shares of the classes a constant probe falls below chance: a class that is frequent in the
    training folds is rare in the held-out fold.
    """
    order = numpy_rng(seed, "decoder folds").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def held_out(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, check_stop: Callable[[], None] = lambda: None
) -> Held:
    """Predict every sample by a probe that saw no sample of its fold.

    Args:
        features: (n, p).
        labels: (n,).
        folds: (n,) fold of each sample's episode.
        check_stop: called before each fold; it may raise.
    """
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
    """Return the inverse strength with the best held-out log likelihood.

    The search ends at the first strength that is worse than the strength before: features that do not generalise
    under a strong penalty take longest to fit under a weak penalty.
    """
    best, score = CS[0], -np.inf
    for strength in CS:
        now = sum(split.log_likelihood(strength, classes) for split in splits)
        if now < score:
            break
        best, score = strength, now
    return best


@dataclass(frozen=True)
class _Split:
    """Standardised features of the samples to learn from (near), and of the samples to predict (far)."""

    near: np.ndarray  # (n, p), or fewer numbers that give the same probe
    near_labels: np.ndarray  # (n,) in 0 … C − 1
    far: np.ndarray
    far_labels: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> _Split:
        scaler = StandardScaler().fit(features[train])
        near, far = _rotated(scaler.transform(features[train]), scaler.transform(features[test]))
        return cls(near, labels[train], far, labels[test])

    def log_probabilities(self, strength: float, classes: int) -> np.ndarray:
        """Return (n of far, C) natural logarithms, none below the logarithm of 1e-12."""
        seen, probability = np.unique(self.near_labels), np.zeros((len(self.far), classes))
        if len(seen) == 1:
            probability[:, seen] = 1
        else:
            probe = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
            with warnings.catch_warnings():  # a separable class under a weak penalty: the held-out score judges it
                warnings.simplefilter("ignore", ConvergenceWarning)
                probability[:, seen] = probe.fit(self.near, self.near_labels).predict_proba(self.far)
        return np.log(np.maximum(probability, 1e-12))

    def log_likelihood(self, strength: float, classes: int) -> float:
        return float(self.log_probabilities(strength, classes)[np.arange(len(self.far)), self.far_labels].sum())


def _rotated(near: np.ndarray, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce the features without changing the probe.

    With fewer samples than features, the weights of a probe with an L2 penalty lie in the span of the training samples.
    So (n, p) becomes (n, rank), and the features orthogonal to the span do not matter.
    """
    if near.shape[1] <= near.shape[0]:
        return near, far
    values, vectors = np.linalg.eigh(near @ near.T)
    kept = values > values[-1] * 1e-10
    if not kept.any():  # the features are constant
        return near[:, :1], far[:, :1]
    scale = np.sqrt(values[kept])
    return vectors[:, kept] * scale, far @ near.T @ vectors[:, kept] / scale


# --- traces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticks:
    """The ticks of E episodes with a cue, concatenated."""

    memory: np.ndarray  # (n, p) float32
    episode: np.ndarray  # (n,) index into the episodes
    since: np.ndarray  # (n,) steps since the cue's last step
    phase: np.ndarray  # (n,)
    labels: dict[str, np.ndarray]  # of episodes (E,)
    seed: int  # keys every draw

    @classmethod
    def of(cls, traces: list[Trace]) -> Ticks:
        """Concatenate the episodes with a cue. Raises MuvlaError if there are too few."""
        traces = [trace for trace in traces if "cue_end" in trace.events]
        if len(traces) < LEAST:
            raise MuvlaError(
                "probe decoders",
                got=f"{len(traces)} episodes with a cue",
                expected=f"at least {LEAST}",
                remedy="choose a protocol whose task has a cue, or more episodes",
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
        """Return the indices of the ticks so many steps since the cue."""
        return np.flatnonzero(self.since == since)


def since_classes(since: np.ndarray) -> np.ndarray:
    """Return the class of each number of steps: BEFORE, 0 … 4, then one per doubling, 5 for 5-8, 6 for 9-16, …"""
    doubled = 3 + np.ceil(np.log2(np.maximum(since, 1))).astype(int) - 1
    return np.where(since < 0, BEFORE, np.where(since < 5, since, doubled))


def frame(traces: list[Trace], check_stop: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """Return a line per label, control and step since the cue.

    Columns: `value` with `low` and `high`; `bits` with `bits_low` and `bits_high` (95 %, Student's t over episodes);
    the `n` episodes at that step; `chance`, the `value` of a constant answer. `control` is "shuffled" where labels
    were permuted, over episodes or, for the labels of ticks, over ticks. A step with too few episodes, in all or of a
    class, has `n` alone.

    Args:
        traces: one per episode.
        check_stop: called before every fold of every probe; it may raise.
    """
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
    """Yield the lines of a label with one probe per step."""
    for since in np.unique(ticks.since).tolist():
        at = ticks.at(since)
        labels = values[ticks.episode[at]]
        _, counts = np.unique(labels, return_counts=True)
        if len(at) < LEAST or len(counts) < 2 or counts.min() < PER_CLASS:
            yield _line(label, control, since, len(at))
            continue
        held = held_out(ticks.memory[at], labels, episode_folds(labels, ticks.seed), check_stop)
        yield _line(label, control, since, len(at), held, counts.max() / len(at))


def _of_ticks(
    ticks: Ticks, label: str, values: np.ndarray, control: str, check_stop: Callable[[], None]
) -> Iterator[dict]:
    """Yield the lines of a label with one probe for all ticks, evaluated step by step."""
    classes, counts = np.unique(values, return_counts=True)
    constant = values == classes[counts.argmax()]  # (n,) where the constant answer is correct
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
    name = label + SHUFFLED if control == "shuffled" else label
    line = {"label": label, "control": control, "curve": name, "since_cue": since, "n": n, "chance": chance} | empty
    if held is None:
        return line
    right, bits = int(held.right.sum()), float(held.bits.mean())
    low, high = wilson(right, n)
    bits_low, bits_high = student_interval(bits, held.bits.std(ddof=1), n)
    line |= {"value": right / n, "low": low, "high": high}
    return line | {"bits": bits, "bits_low": bits_low, "bits_high": bits_high}


def read(subject: Subject) -> pd.DataFrame:
    """Accuracy of linear decoders of the memory, step by step since the cue."""
    traces = traces_of(subject)
    # The linear algebra library takes every core; beside another cell, that costs thirty times the time.
    with threadpool_limits(torch.get_num_threads()):
        return frame(traces, subject.check_stop)


DECODERS = Measurement(
    "decoders", 2, read, x="since_cue", y="value", curve="curve", low="low", high="high", chance="chance", share=True
)
