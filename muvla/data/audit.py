"""The label audit: what the labels of the no-op phases tell of an episode's target, before anything is trained on them.

In the cue and the delay the expert says an action that is never executed. If a classifier reads the target off it, a
policy that is supervised with it is told at every step to remember (spec 4.4). With chunks of more than one action the
executed labels tell it too, as soon as they reach the decision.

Legend: N frames, H chunk, A action dim.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from muvla.data.episodes import EpisodeStore
from muvla.envs.phases import NO_OP_PHASES
from muvla.errors import MuvlaError

FOLDS = 5


@dataclass(frozen=True)
class Leak:
    """How often an episode's target is told right from its labels; episodes that were not seen in the fit."""

    labels: str
    chunk: int  # H
    frames: int  # N, of the no-op phases
    episodes: int
    correct: int
    chance: float  # share of the most frequent target: what a guess gives that looks at no label

    @property
    def accuracy(self) -> float:
        return self.correct / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson, 95 %."""
        found = binomtest(self.correct, self.episodes).proportion_ci(0.95, method="wilson")
        return found.low, found.high

    @property
    def leaks(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.interval[0] > self.chance

    def line(self) -> str:
        low, high = self.interval
        word = "tells the target" if self.leaks else "no more than chance"
        return (
            f"labels {self.labels}, H = {self.chunk}: {self.accuracy:.2f} [{low:.2f}, {high:.2f}] of {self.episodes} "
            f"episodes, chance {self.chance:.2f} ({self.frames} no-op frames): {word}"
        )


def audit(store: EpisodeStore, labels: str, chunk: int) -> Leak:
    """Logistic regression from the label chunk of every no-op frame to the target, cross-validated by whole episodes;
    an episode's guess is that of the mean of its frames' log probabilities.

    Raises MuvlaError for data that tell neither phases nor targets, and where there is nothing to tell apart.
    """
    if not store.knows_executed:
        raise MuvlaError(
            str(store.path), got="imported data, whose phases and targets are unknown", expected="both",
            remedy="audit demonstrations that were collected here on the same task",
        )  # fmt: skip
    targets = np.array([line["target"] for line in store.index])
    episode = np.repeat(np.arange(len(store)), store.lengths)
    no_op = np.flatnonzero(np.isin(store["phase"], [int(phase) for phase in NO_OP_PHASES]))
    if len(np.unique(targets)) < 2 or len(no_op) == 0 or len(store) < 2 * FOLDS:
        raise MuvlaError(
            str(store.path), got=f"{len(np.unique(targets))} targets, {len(no_op)} no-op frames, {len(store)} episodes",
            expected=f"at least two targets, a no-op phase and {2 * FOLDS} episodes", remedy="audit another dataset",
        )  # fmt: skip
    ends = (store.starts + store.lengths)[episode[no_op]]
    entries = np.minimum(no_op[:, None] + np.arange(chunk), ends[:, None] - 1)
    features = np.asarray(store[f"{labels}_action"])[entries].reshape(len(no_op), -1)
    of_frame, wanted = episode[no_op], targets[episode[no_op]]
    told = np.zeros((len(store), int(targets.max()) + 1))
    for fit, held in GroupKFold(FOLDS).split(features, wanted, of_frame):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # labels that are all alike have nothing to converge to
            model.fit(features[fit], wanted[fit])
        scores = model.predict_log_proba(features[held])
        for column, target in enumerate(model.classes_):
            np.add.at(told[:, target], of_frame[held], scores[:, column])
        unseen = np.setdiff1d(np.arange(told.shape[1]), model.classes_)
        told[np.ix_(np.unique(of_frame[held]), unseen)] = -np.inf
    has_frames = np.isin(np.arange(len(store)), of_frame)
    correct = int((told.argmax(axis=1) == targets)[has_frames].sum())
    share = np.bincount(targets[has_frames]).max() / has_frames.sum()
    return Leak(labels, chunk, len(no_op), int(has_frames.sum()), correct, float(share))
