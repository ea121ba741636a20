"""The copycat audit: how much of each step's action do the robot's own past pose and past action tell?

An expert's movement continues itself. Where the pose tells the next action, a policy lowers its loss there without
sight or memory, and a low loss says nothing about either. The audit predicts the action of every step since the
decision's first step from the pose, and from the action before.

Legend: E episodes, Q proprio dim, A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from muvla.data.explained_variance import explained_variance
from muvla.data.label_audit import FOLDS
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase

MOST_STEPS = 12
MUCH = 0.5  # R² from which on a past tells most of an action


@dataclass(frozen=True)
class CopycatResult:
    """R² of the actions of one step, from the pose and from the action before, for episodes outside the fit."""

    step: int  # 0 is the first step of the decision, or of the episode where phases are unknown
    since: str  # decision or episode
    episodes: int  # E
    pose: float  # R² against the mean action, from the pose and its change since the step before
    pose_low: float  # 95 % interval: bootstrap over episodes
    pose_high: float
    action: float  # R² from the action of the step before
    action_low: float
    action_high: float

    @property
    def tells_most(self) -> bool:
        """True if a past tells at least MUCH of the action, by the lower limit."""
        return max(self.pose_low, self.action_low) >= MUCH

    def line(self) -> str:
        if self.tells_most:
            word = "the arm's own past tells most of the action"
        elif max(self.pose_low, self.action_low) > 0:
            word = "the arm's own past tells some of the action"
        else:
            word = "the arm's own past does not tell the action"
        return (
            f"step {self.step} of the {self.since}: R² of the action from the past pose {self.pose:.2f} "
            f"[{self.pose_low:.2f}, {self.pose_high:.2f}], from the past action {self.action:.2f} "
            f"[{self.action_low:.2f}, {self.action_high:.2f}], {self.episodes} episodes: {word}"
        )


def audit_copycat(store: EpisodeStore) -> list[CopycatResult]:
    """Predicts the action of every step since the decision, by ridge regression cross-validated by whole episodes.

    A step counts while 2 · FOLDS episodes reach it, up to MOST_STEPS steps. Where phases are unknown, steps count from
    the episode's first. Labels are the executed actions, or the recorded ones where nothing else is known.
    """
    actions = np.asarray(store["executed_action" if store.knows_executed else "recorded_action"], dtype=np.float64)
    proprio, results = np.asarray(store["proprio"], dtype=np.float64), []
    first, ends, since = _first_steps(store)
    for step in range(MOST_STEPS):
        reached = first + step < ends
        rows, starts = (first + step)[reached], store.starts[reached]
        if len(rows) < 2 * FOLDS:
            break
        before = np.maximum(rows - 1, starts)
        pose = np.concatenate([proprio[rows], proprio[rows] - proprio[before]], axis=1)
        action = np.where((rows > starts)[:, None], actions[before], 0)
        of_pose, of_action = (_cross_validate(features, actions[rows]) for features in (pose, action))
        results.append(CopycatResult(step, since, len(rows), *of_pose, *of_action))
    return results


def summarize_copycat(results: list[CopycatResult]) -> str:
    """One sentence on all steps."""
    if not results:
        return f"copycat: not applicable: fewer than {2 * FOLDS} episodes"
    steps = [str(result.step) for result in results if result.tells_most]
    if not steps:
        return "copycat: at no step does the arm's own past tell most of the action"
    return (
        f"copycat: the arm's own past tells most of the action at the steps {', '.join(steps)} of the "
        f"{results[0].since}. A low loss there shows neither sight nor memory; the error at the first step of the "
        "decision does (`loss_at_first_decision`)"
    )


def _first_steps(store: EpisodeStore) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns the row of every episode's first counted step, the row after its last, and the name of the count.

    An episode without a decision has its end in place of the first step.
    """
    ends = store.starts + store.lengths
    if not store.knows_executed:
        return store.starts, ends, "episode"
    frames = np.flatnonzero(np.asarray(store["phase"]) == Phase.DECISION)
    following = np.append(frames, ends[-1])[np.searchsorted(frames, store.starts)]
    return np.minimum(following, ends), ends, "decision"


def _cross_validate(features: np.ndarray, actions: np.ndarray) -> tuple[float, float, float]:
    """Returns R² of (E, A) actions with its 95 % interval, against the mean action of the other folds."""
    predicted, plain = np.empty_like(actions), np.empty_like(actions)
    for fit, held in KFold(FOLDS, shuffle=True, random_state=0).split(features):
        model = make_pipeline(StandardScaler(), Ridge()).fit(features[fit], actions[fit])
        predicted[held] = model.predict(features[held]).reshape(len(held), -1)
        plain[held] = actions[fit].mean(axis=0)
    return explained_variance(actions, predicted, plain)
