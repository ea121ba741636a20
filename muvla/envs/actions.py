"""The check that every environment applies to an action before it steps.

Legend: A action dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from muvla.errors import MuvlaError


def clipped(action: Any, numbers: int, dtype: type = np.float32) -> np.ndarray:
    """The action as an array (A,), clipped to [-1, 1].

    Raises MuvlaError unless there are A finite numbers. A simulator would accept NaN and continue with a broken state.
    """
    given = np.asarray(action, dtype=dtype)
    if given.shape != (numbers,) or not np.isfinite(given).all():
        raise MuvlaError(
            "action",
            got=action,
            expected=f"{numbers} finite numbers",
            remedy="check the policy or the expert: the training diverged, or the task has no expert",
        )
    return np.clip(given, -1, 1)
