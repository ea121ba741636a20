"""What imported demonstrations do not tell, derived from what they do, by a declared rule whose accuracy is measured on
demonstrations collected here, which tell.

Legend: T steps, Q proprio dim.

The one rule, `motion`: the frames before the effector's first movement are no-op frames, and there the simulator
applied zeros, as MIKASA's wrapper does (μVLA spec 4.4); from then on it applied what is recorded. Cue and delay look
alike to it, so the phases are NO_OP and DECISION.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binomtest

from muvla.data.store import Episode, EpisodeStore
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError

MOTION = "motion"
PLACE = 3  # the first numbers of a proprio are the effector's place: x, y, z, or fewer in the plane
# Of an episode's longest step, what counts as a movement: joints that settle move the effector a little.
SHARE = 0.1


def first_movement(proprio: np.ndarray) -> int:
    """The first of (T, Q) frames whose action moved the effector; T if none did."""
    steps = np.linalg.norm(np.diff(proprio[:, :PLACE].astype(np.float64), axis=0), axis=1)
    moved = steps > SHARE * steps.max(initial=0.0)
    return int(moved.argmax()) if moved.any() else len(proprio)


def derived(episode: Episode) -> Episode:
    """With executed actions and phases by the rule."""
    start = first_movement(episode.proprio)
    phase = np.full(len(episode.phase), Phase.DECISION, np.uint8)
    phase[:start] = Phase.NO_OP
    executed = np.where(phase[:, None] == Phase.NO_OP, np.float32(0), episode.recorded_action)
    return replace(episode, executed_action=executed, phase=phase)


@dataclass(frozen=True)
class Check:
    """How the rule does on a dataset that tells the truth."""

    dataset: str
    content: str  # the dataset's hash
    frames: float  # share of frames told right, executed or not
    episodes: int
    whole: float  # share of episodes with every frame right
    low: float  # its 95 % Wilson interval: frames of one episode are wrong together
    high: float
    # Largest difference, in frames told right, between derived and true executed actions.
    executed_error: float

    def line(self) -> str:
        return (
            f"derived by {MOTION}: on {self.dataset}, {self.frames:.4f} of the frames told right; every frame in "
            f"{self.whole:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.episodes} episodes; executed actions there "
            f"within {self.executed_error:.2g}"
        )

    def meta(self) -> dict[str, Any]:
        """For the meta.json of what is derived."""
        return {"rule": MOTION, "checked_on": self.__dict__}


def check(store: EpisodeStore) -> Check:
    """The rule against what a dataset tells. Raises MuvlaError for one that does not, or whose phases are derived, and
    for any import: whether others' files tell or derived it, nothing here can know."""
    store.require_phases("a derivation's accuracy")
    if store.spec.source is not None:
        raise MuvlaError(
            "--checked-on",
            got=f"{store.name}, an import",
            expected="demonstrations collected here",
            remedy="run `muvla collect STUDY`, and name its dataset",
        )
    right, error = [], 0.0
    for line in store.index:
        rows = slice(line["start"], line["start"] + line["length"])
        steps = np.arange(line["length"])
        executed = steps >= first_movement(np.asarray(store["proprio"][rows]))
        right.append(executed == store.is_executed[rows])
        recorded = np.asarray(store["recorded_action"][rows])
        difference = np.abs(np.where(executed[:, None], recorded, 0) - store["executed_action"][rows]).max(axis=1)
        error = max(error, float(difference[right[-1]].max(initial=0.0)))
    whole = [bool(one.all()) for one in right]
    wilson = binomtest(sum(whole), len(whole)).proportion_ci(0.95, method="wilson")
    return Check(
        store.name,
        store.sha256,
        float(np.concatenate(right).mean()),
        len(whole),
        float(np.mean(whole)),
        float(wilson.low),
        float(wilson.high),
        error,
    )


def require_rule(rule: str | None, checked_on: str | None) -> None:
    """Raises MuvlaError for one of the two without the other: no number is derived whose accuracy nobody has seen."""
    if (rule is None) != (checked_on is None):
        raise MuvlaError(
            "--derive and --checked-on",
            got=rule or checked_on,
            expected="both, or neither",
            remedy="name the rule, and a dataset collected here on which its accuracy is measured",
        )
