"""What every environment makes of an action before it steps.

Legend: A action dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from muvla.errors import MuvlaError


def clipped(action: Any, numbers: int, dtype: type = np.float32) -> np.ndarray:
    """(A,) in [-1, 1]. Raises MuvlaError for what is not A finite numbers: a simulator would go on with it, and what
    it then shows is nobody's episode."""
    given = np.asarray(action, dtype=dtype)
    if given.shape != (numbers,) or not np.isfinite(given).all():
        raise MuvlaError(
            "action",
            got=action,
            expected=f"{numbers} finite numbers",
            remedy="look at the policy or the expert that gave it: a diverged training, or a task without an expert",
        )
    return np.clip(given, -1, 1)
