"""The adaptive ensemble of CogACT, which MemoryVLA and CronusVLA evaluate SimplerEnv with.

Legend: n predictions, H chunk, A action dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvla.data.normalization import Outputs

MARGIN = 1e-7  # of the published cosine


def combine_chunks(chunks: Sequence[np.ndarray], alpha: float) -> np.ndarray:
    """Return the action (A,) for the current step, from the chunks of the last n steps.

    Args:
        chunks: (H, A) each, not normalised, the oldest first; the last chunk was predicted at the current step. H is
            at least n.
        alpha: weight of the agreement with the newest prediction; 0 is the mean.
    """
    newest = len(chunks) - 1
    return combine_predictions(np.stack([chunk[newest - i] for i, chunk in enumerate(chunks)]), alpha)


def combine_predictions(predictions: np.ndarray, alpha: float) -> np.ndarray:
    """Return the weighted mean (A,) of predictions (n, A) of one action; the newest prediction is the last.

    A prediction's weight is exp(α·cos(prediction, newest)). The cosine covers all A numbers, the gripper included.
    """
    newest = predictions[-1]
    norms = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
    weights = np.exp(alpha * (predictions @ newest) / (norms + MARGIN))
    return (weights / weights.sum()) @ predictions


def has_binary_gripper(mask: Sequence[bool], outputs: Outputs) -> bool:
    """Tell whether a policy's deployment answers a gripper of 0 or 1: an action expert's, with an unscaled number.

    Args:
        mask: (A,) True where the statistics scale the number.
        outputs: limits of the policy's numbers; "open" without an action expert.
    """
    return outputs != "open" and not mask[-1]


def threshold_gripper(chunk: np.ndarray, mask: Sequence[bool], outputs: Outputs) -> np.ndarray:
    """Return a chunk (H, A) whose last number is 0 or 1, as an action expert's deployment does before an ensemble.

    The threshold 0.5 is that of MemoryVLA and CogACT. A gripper that the statistics scale, and the numbers of another
    action head, stay as they are.

    Args:
        chunk: (H, A), not normalised.
        mask: (A,) True where the statistics scale the number.
        outputs: limits of the policy's numbers.
    """
    if not has_binary_gripper(mask, outputs):
        return chunk
    return np.concatenate([chunk[:, :-1], chunk[:, -1:] >= 0.5], axis=1, dtype=chunk.dtype)
