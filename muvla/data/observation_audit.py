"""The observation audit: does a frame that should hold nothing of the target hold it?

A memory is needed only where the target stands in no frame of the delay and not in the first frame of the decision.
The audit predicts the target from the pixels and from the proprio of these frames, and compares the predictions with
those for shuffled targets.

Frames that a task uses to change what must be known stay out: an episode's delay counts from the step after its
`update` event on. Later frames of the decision stay out, too, because the moving arm may show where it goes.

Legend: E episodes, F features, C targets, P permutations, N frames, V cameras, Q proprio dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from muvla.data.label_audit import FOLDS, why_no_targets
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase, events
from muvla.utils.rng import numpy_rng

SIDE = 32  # pixels: larger frames are averaged over blocks down to at most this size
SHUFFLES = 999  # shuffled targets of the control
ERROR_RATE = 0.01  # largest probability of one false alarm or more in an audit, by Holm over its tests
MOST_EPISODES = 2000
RIDGE = 0.1  # relative to the mean squared feature


@dataclass(frozen=True)
class ObservationResult:
    """How well one input of the frames of one phase predicts the target of episodes outside the fit."""

    frames: str  # delay or decision
    observed: str  # pixels or proprio
    episodes: int  # E
    value: float | None  # share of targets predicted correctly
    chance: float | None  # the same for shuffled targets, mean over the permutations
    p: float | None  # share of permutations, the data included, that predict as well or better
    reveals: bool  # p passes Holm at ERROR_RATE over the tests of the audit
    reason: str | None = None  # why the audit is not applicable

    def line(self) -> str:
        name = f"{self.observed} of {FRAMES[self.frames]}"
        if self.reason:
            return f"{name}: not applicable: {self.reason}"
        word = "the frames reveal it" if self.reveals else "no difference from shuffled targets"
        return (
            f"{name}: target predicted {self.value:.2f}, shuffled targets {self.chance:.2f}, {self.episodes} episodes, "
            f"p = {self.p:.3f}: {word} (at most {ERROR_RATE:.0%} of audits accuse frames without the target)"
        )


FRAMES = {"delay": "the delay", "decision": "the first frame of the decision"}


def audit_observations(store: EpisodeStore) -> list[ObservationResult]:
    """Predicts the target from pixels and from proprio, of the delay and of the first frame of the decision.

    The classifier is a ridge regression on the targets, cross-validated by whole episodes. An episode of the delay is
    described by the mean of its frames and by the difference of its last and first frame. The control fits the same
    classifier to SHUFFLES permutations of the targets over the episodes.

    Returns:
        One result per phase and input. Imported demonstrations without targets give results that are not applicable.
    """
    reason = why_no_targets(store)
    results = [_predict(store, frames, reason) for frames in FRAMES]
    return _holm([result for pair in results for result in pair])


def _predict(store: EpisodeStore, frames: str, reason: str | None) -> Iterator[ObservationResult]:
    """Yields the results of one phase, before Holm's correction."""
    chosen = {} if reason else dict(list(_frames_of(store, frames).items())[:MOST_EPISODES])
    targets = np.unique([store.index[episode]["target"] for episode in chosen], return_inverse=True)[1]
    counts = np.bincount(targets)
    if not reason and (len(chosen) < 2 * FOLDS or len(counts) < 2 or counts.min() < 2):
        reason = f"{len(chosen)} episodes have such frames, and their targets occur {counts.tolist()} times"
    for observed, column in (("pixels", "images"), ("proprio", "proprio")):
        if reason:
            yield ObservationResult(frames, observed, len(chosen), None, None, None, False, reason)
            continue
        features = np.stack([_describe(store[column], rows, frames) for rows in chosen.values()])
        value, control = predict_shuffled(features, targets)
        p = float((1 + (control >= value).sum()) / (1 + len(control)))
        yield ObservationResult(frames, observed, len(chosen), value, float(control.mean()), p, False)


def _frames_of(store: EpisodeStore, frames: str) -> dict[int, np.ndarray]:
    """Returns episode → its frames of the audit, as rows of the store; episodes without such frames are left out."""
    phase, chosen = np.asarray(store["phase"]), {}
    for episode, (start, length) in enumerate(zip(store.starts, store.lengths, strict=True)):
        of_episode = phase[start : start + length]
        if frames == "decision":
            steps = np.flatnonzero(of_episode == Phase.DECISION)[:1]
        else:
            changed = events(store.index[episode]).get("update", -1)
            steps = np.flatnonzero(of_episode == Phase.DELAY)
            steps = steps[steps > changed]
        if len(steps):
            chosen[episode] = start + steps
    return chosen


def _describe(column: np.ndarray, rows: np.ndarray, frames: str) -> np.ndarray:
    """Returns (F,): the frame of the decision, or mean and change of the frames of a delay."""
    values = np.stack([_shrink(column[row]).ravel() for row in rows])
    return values[0] if frames == "decision" else np.concatenate([values.mean(axis=0), values[-1] - values[0]])


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Returns proprio (Q,) as it is, and images (V, h, w, 3) as means over blocks, at most SIDE × SIDE."""
    frame = np.asarray(frame, dtype=np.float64)
    if frame.ndim == 1:
        return frame
    cameras, height, width, channels = frame.shape
    block = -(-max(height, width) // SIDE)
    height, width = height // block * block, width // block * block
    blocks = frame[:, :height, :width].reshape(cameras, height // block, block, width // block, block, channels)
    return blocks.mean(axis=(2, 4))


def predict_shuffled(features: np.ndarray, targets: np.ndarray, shuffles: int = SHUFFLES) -> tuple[float, np.ndarray]:
    """Returns the share of targets predicted correctly, and (P,) the same for shuffled targets.

    Ridge regression is linear in the targets, so one matrix predicts all permutations.

    Args:
        features: (E, F), one line per episode.
        targets: (E,) numbers 0 … C − 1.
        shuffles: P.
    """
    spread = features.std(axis=0)
    varies = spread > 1e-9 * np.maximum(1, np.abs(features).max(axis=0))
    rng, classes = numpy_rng(0, "observation audit"), np.eye(int(targets.max()) + 1)
    shuffled = np.stack([targets, *(rng.permutation(targets) for _ in range(shuffles))], axis=1)  # (E, 1 + P)
    scaled = (features[:, varies] - features[:, varies].mean(axis=0)) / spread[varies]
    weights = _held_out_weights(scaled, rng.permutation(len(targets)) % FOLDS)
    share = np.empty(1 + shuffles)
    for some in np.array_split(np.arange(1 + shuffles), 1 + shuffles // 100):
        labels = classes[shuffled[:, some]]  # (E, some, C)
        scores = np.tensordot(weights, labels, axes=1)
        share[some] = (scores.argmax(axis=2) == shuffled[:, some]).mean(axis=0)
    return float(share[0]), share[1:]


def _held_out_weights(features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Returns (E, E): the weight of every episode's target in the prediction for every episode of another fold."""
    kernel = 1 + features @ features.T / max(1, features.shape[1])  # 1: an intercept
    weights = np.zeros_like(kernel)
    for number in range(FOLDS):
        held, fit = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        regular = kernel[np.ix_(fit, fit)] + RIDGE * np.eye(len(fit))
        weights[np.ix_(held, fit)] = np.linalg.solve(regular, kernel[np.ix_(fit, held)]).T
    return weights


def _holm(results: list[ObservationResult]) -> list[ObservationResult]:
    """Returns the results with `reveals` set by Holm's correction over all applicable tests."""
    tests = sorted((i for i, result in enumerate(results) if not result.reason), key=lambda i: results[i].p)
    alarms = set()
    for rank, i in enumerate(tests):
        if results[i].p > ERROR_RATE / (len(tests) - rank):
            break
        alarms.add(i)
    return [ObservationResult(**vars(result) | {"reveals": i in alarms}) for i, result in enumerate(results)]
