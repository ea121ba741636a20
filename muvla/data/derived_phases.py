"""Phases and executed actions of imported demonstrations, derived by a declared rule with measured accuracy.

The accuracy is measured on demonstrations collected here, which record phases and executed actions.

Legend: T steps, Q proprio dim.

The only rule is `motion`. Frames before the effector's first movement are no-op frames, and the simulator applied zeros
there, as MIKASA's wrapper does (μVLA spec 4.4). From the first movement on, the simulator applied the recorded actions.
The rule cannot distinguish cue from delay, so the phases are NO_OP and DECISION.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from muvla.data.store import Episode, EpisodeStore
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.stats import wilson

MOTION = "motion"
POSITION = 3  # the first numbers of a proprio are the effector's position: x, y, z, or fewer in the plane
# A step of this share of the episode's longest step is a movement: settling joints move the effector a little.
SHARE = 0.1


def find_first_movement(proprio: np.ndarray) -> int:
    """Returns the first of (T, Q) frames whose action moved the effector; T if no action did."""
    steps = np.linalg.norm(np.diff(proprio[:, :POSITION].astype(np.float64), axis=0), axis=1)
    moved = steps > SHARE * steps.max(initial=0.0)
    return int(moved.argmax()) if moved.any() else len(proprio)


def derive(episode: Episode) -> Episode:
    """Returns the episode with executed actions and phases by the rule."""
    start = find_first_movement(episode.proprio)
    phase = np.full(len(episode.phase), Phase.DECISION, np.uint8)
    phase[:start] = Phase.NO_OP
    executed = np.where(phase[:, None] == Phase.NO_OP, np.float32(0), episode.recorded_action)
    return replace(episode, executed_action=executed, phase=phase)


@dataclass(frozen=True)
class RuleAccuracy:
    """Accuracy of the rule on a dataset that records phases."""

    dataset: str
    content: str  # the dataset's hash
    frames: float  # share of frames that the rule classifies correctly, executed or not
    episodes: int
    whole: float  # share of episodes with every frame correct
    low: float  # 95 % Wilson interval of `whole`: errors of one episode's frames are correlated
    high: float
    # Largest difference, in correct frames, between derived and true executed actions.
    executed_error: float

    def line(self) -> str:
        return (
            f"derived by {MOTION}: on {self.dataset}, {self.frames:.4f} of the frames are correct; every frame in "
            f"{self.whole:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.episodes} episodes; executed actions "
            f"within {self.executed_error:.2g}"
        )

    def meta(self) -> dict[str, Any]:
        """Returns the entry for the meta.json of a derived dataset."""
        return {"rule": MOTION, "checked_on": self.__dict__}


def measure_accuracy(store: EpisodeStore) -> RuleAccuracy:
    """Compares the rule with a dataset's recorded phases.

    Raises MuvlaError if the dataset's phases are unknown or derived, and for any import: its files may hold derived
    phases without saying so.
    """
    store.require_phases("a derivation's accuracy")
    if store.spec.source is not None:
        raise MuvlaError(
            "--checked-on",
            got=f"{store.name}, an import",
            expected="demonstrations collected here",
            remedy="run `muvla collect STUDY`, and pass its dataset",
        )
    right, error = [], 0.0
    for line in store.index:
        rows = slice(line["start"], line["start"] + line["length"])
        steps = np.arange(line["length"])
        executed = steps >= find_first_movement(np.asarray(store["proprio"][rows]))
        right.append(executed == store.is_executed[rows])
        recorded = np.asarray(store["recorded_action"][rows])
        difference = np.abs(np.where(executed[:, None], recorded, 0) - store["executed_action"][rows]).max(axis=1)
        error = max(error, float(difference[right[-1]].max(initial=0.0)))
    whole = [bool(frames.all()) for frames in right]
    low, high = wilson(sum(whole), len(whole))
    return RuleAccuracy(
        store.name,
        store.sha256,
        float(np.concatenate(right).mean()),
        len(whole),
        float(np.mean(whole)),
        low,
        high,
        error,
    )


def require_rule(rule: str | None, checked_on: str | None) -> None:
    """Raises MuvlaError for a rule without a dataset to measure its accuracy on, or the reverse."""
    if (rule is None) != (checked_on is None):
        raise MuvlaError(
            "--derive" if checked_on is None else "--checked-on",
            got=rule or checked_on,
            expected="both --derive and --checked-on, or neither",
            remedy="pass --derive with the rule and --checked-on with a dataset collected here",
        )
