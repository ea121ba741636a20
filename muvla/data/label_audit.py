"""The label audit: how much the labels of the no-op phases reveal, measured before any training.

In cue and delay the expert records an action that is never executed. If this action reveals what the decision needs,
supervision with it tells the policy at every step what to remember (spec 4.4). With chunks of more than one action,
executed labels reveal the decision too, as soon as a chunk reaches it. The audit predicts two things, because a task
may draw what is shown (a colour) and where it stands independently: the episode's target, and the direction of the
expert's first action.

Legend: N frames, H chunk, A action dim.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from muvla.data.explained_variance import explained_variance
from muvla.data.store import EpisodeStore
from muvla.envs.phases import NO_OP_PHASES, Phase
from muvla.errors import MuvlaError
from muvla.stats import wilson

FOLDS = 5


@dataclass(frozen=True)
class AuditResult:
    """How well labels predict the target, or the direction, of episodes outside the fit."""

    what: str  # target or direction
    labels: str
    chunk: int  # H
    frames: int  # N, frames of the no-op phases
    episodes: int
    value: float  # share of targets predicted correctly; or R² of the expert's first action of the decision
    low: float  # 95 % interval: Wilson, or bootstrap over episodes
    high: float
    chance: float  # share of the most frequent target; R² 0

    @property
    def leaks(self) -> bool:
        """True if the whole interval lies above chance."""
        return self.low > self.chance

    def line(self) -> str:
        name = "target predicted" if self.what == "target" else "first action of the decision, R²"
        word = "the labels reveal it" if self.leaks else f"no difference from chance (at most {self.high:.2f})"
        return (
            f"labels {self.labels}, H = {self.chunk}: {name} {self.value:.2f} [{self.low:.2f}, {self.high:.2f}], "
            f"chance {self.chance:.2f}, {self.episodes} episodes, {self.frames} no-op frames: {word}"
        )


def why_no_targets(store: EpisodeStore) -> str | None:
    """Returns why no audit can predict a target on this dataset; None where the targets are known."""
    facts = {"phases": store.knows_executed, "targets": _knows_targets(store)}
    unknown = [name for name, is_known in facts.items() if not is_known]
    return f"the {' and '.join(unknown)} of these demonstrations are unknown" if unknown else None


def _knows_targets(store: EpisodeStore) -> bool:
    return all(line.get("target") is not None for line in store.index)


def audit(store: EpisodeStore, labels: str, chunk: int) -> tuple[AuditResult, AuditResult]:
    """Predicts target and direction from the label chunk of every no-op frame.

    The target is predicted by logistic regression, the direction by ridge regression, both cross-validated by whole
    episodes. An episode's prediction is the mean over its frames. Chunks end where the longest episode does.

    Raises:
        MuvlaError: phases or targets are unknown, or the dataset has too few episodes or targets.
    """
    if reason := why_no_targets(store):
        raise MuvlaError(
            str(store.path),
            got=reason,
            expected="phases and targets",
            remedy="audit demonstrations that `muvla collect` collected on the same task",
        )
    phase, of_frame = np.asarray(store["phase"]), np.repeat(np.arange(len(store)), store.lengths)
    no_op = np.flatnonzero(np.isin(phase, [int(p) for p in NO_OP_PHASES]))
    decision = np.flatnonzero(phase == Phase.DECISION)
    audited = np.intersect1d(of_frame[no_op], of_frame[decision])
    targets = np.array([line["target"] for line in store.index])
    counts = np.unique(targets[audited], return_counts=True)[1] if len(audited) else np.array([])
    if len(audited) < 2 * FOLDS or len(counts) < 2 or counts.min() < 2:
        raise MuvlaError(
            str(store.path),
            got=f"{len(audited)} episodes with a no-op phase and a decision, targets {counts.tolist()} times",
            expected=f"at least {2 * FOLDS} episodes and two targets, each of them twice",
            remedy="audit a dataset with more episodes or targets",
        )
    no_op = no_op[np.isin(of_frame[no_op], audited)]
    ends = (store.starts + store.lengths)[of_frame[no_op]]
    reach = np.arange(min(chunk, int(store.lengths.max())))
    entries = np.minimum(no_op[:, None] + reach, ends[:, None] - 1)
    features = np.asarray(store[f"{labels}_action"])[entries].reshape(len(no_op), -1)
    group = np.searchsorted(audited, of_frame[no_op])  # number of each frame's episode among the audited episodes
    first = decision[np.searchsorted(of_frame[decision], audited)]
    counted = (labels, chunk, len(no_op), len(audited))
    correct = int((_targets(features, group, targets[audited]) == targets[audited]).sum())
    low, high = wilson(correct, len(audited))
    share = float(counts.max() / counts.sum())
    target = AuditResult("target", *counted, correct / len(audited), low, high, share)
    action = np.asarray(store["executed_action"])[first].astype(np.float64)
    explained = explained_variance(action, _actions(features, group, action))
    return target, AuditResult("direction", *counted, *explained, 0.0)


def _targets(features: np.ndarray, group: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns each episode's target with the highest mean log probability over its frames."""
    classes = np.unique(targets)
    sums = np.zeros((len(targets), len(classes)))
    of_frame = targets[group]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # identical labels leave nothing to converge to
        warnings.simplefilter("ignore", UserWarning)  # a target with fewer episodes than folds
        for fit, held in StratifiedGroupKFold(FOLDS).split(features, of_frame, group):
            column = np.searchsorted(classes, np.unique(of_frame[fit]))
            scores = np.full((len(held), len(classes)), -np.inf)
            if len(column) == 1:
                scores[:, column] = 0.0
            else:
                model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
                scores[:, column] = model.fit(features[fit], of_frame[fit]).predict_log_proba(features[held])
            np.add.at(sums, group[held], scores)
    return classes[sums.argmax(axis=1)]


def _actions(features: np.ndarray, group: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Returns (episodes, A): for each episode, the mean of its frames' predictions."""
    sums = np.zeros_like(actions)
    for fit, held in GroupKFold(FOLDS).split(features, groups=group):
        model = make_pipeline(StandardScaler(), Ridge()).fit(features[fit], actions[group[fit]])
        np.add.at(sums, group[held], model.predict(features[held]).reshape(len(held), -1))
    return sums / np.bincount(group)[:, None]
