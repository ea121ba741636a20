"""The gripper's number, the last of an action: its meaning in the training, and its form in an answer.

| `--gripper` | the last number of an answer |
|---|---|
| `raw` | the policy's number |
| `binary` | 0 or 1, as in MemoryVLA's deployment |
| `closes` | −1 opens and 1 closes, as LIBERO's simulator and vla-eval's benchmarks of LIBERO take the number |
| `opens` | −1 closes and 1 opens |

The checkpoint decides by default: `binary` for an action expert with a gripper that no statistics scale, as its
deployments set a threshold, and `raw` for every other policy. `closes` and `opens` need the meaning of the trained
number, which the conventions of the dataset state.

Legend: A action dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from muvla.data.normalization import Statistics
from muvla.envs.conventions import Conventions
from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.ensemble import has_binary_gripper
from muvla.models.policy import Policy

FORMS = ("raw", "binary", "closes", "opens")
SIGNED = {"closes": "positive_closes", "opens": "positive_opens"}


@dataclass(frozen=True)
class Gripper:
    """How the last number of an action is answered.

    Attributes:
        form: a name of FORMS.
        cut: smallest policy's number that counts as 1.
        turn: the trained number means the opposite of the answer's.
    """

    form: str = "raw"
    cut: float = 0.5
    turn: bool = False

    def __post_init__(self):
        if self.form not in FORMS:
            raise unknown_name("--gripper", self.form, FORMS)

    def threshold(self, actions: np.ndarray, cut: float | None = None) -> np.ndarray:
        """Return actions (n, A) whose last number is 0 or 1; unchanged under `raw`.

        Args:
            actions: (n, A), not normalised.
            cut: in place of the policy's, for numbers that are thresholded and averaged.
        """
        if self.form == "raw":
            return actions
        return _with_last(actions, actions[:, -1:] >= (self.cut if cut is None else cut))

    def answer(self, actions: np.ndarray) -> np.ndarray:
        """Return thresholded actions (n, A) in the form of an answer."""
        if self.form not in SIGNED:
            return actions
        return _with_last(actions, (1 - 2 * actions[:, -1:]) * (1 if self.turn else -1))


RAW = Gripper()


def choose_gripper(form: str | None, policy: Policy, statistics: Statistics, conventions: Conventions) -> Gripper:
    """The gripper of a served policy.

    Args:
        form: a name of FORMS; None for the checkpoint's form.
        policy: the policy.
        statistics: scale of its actions. The cut is the middle of a scaled number, and 0.5 for an unscaled number.
        conventions: of the actions that the policy was trained on.

    Raises:
        MuvlaError: an unknown form, or a form that needs a meaning that the data do not state.
    """
    scaled = statistics.action_mask[-1]
    if form is None:
        form = "binary" if has_binary_gripper(statistics.action_mask, policy.outputs) else "raw"
    cut = (statistics.action_low[-1] + statistics.action_high[-1]) / 2 if scaled else 0.5
    meaning = SIGNED.get(form)
    if meaning and conventions.gripper is None:
        raise MuvlaError(
            "--gripper",
            got=f"{form}, with data that do not state the gripper's meaning",
            expected="raw or binary",
            remedy="import the dataset again with --convention gripper=positive_opens or gripper=positive_closes",
        )
    return Gripper(form, cut, turn=bool(meaning) and conventions.gripper != meaning)


def answered_conventions(gripper: Gripper, conventions: Conventions) -> Conventions:
    """The conventions of the answers: those of the training, with the gripper's meaning in the answers."""
    meaning: Literal["positive_closes", "positive_opens"] | None = SIGNED.get(gripper.form)
    return conventions.replaced_by(Conventions(gripper=meaning))


def _with_last(actions: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.concatenate([actions[:, :-1], last], axis=1, dtype=actions.dtype)
