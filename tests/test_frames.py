"""Mechanisms that keep the vision tokens of earlier frames."""

import pytest
import torch

from helpers.policies import PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.config import canonical, no_memory
from muvla.config.serialization import content_hash
from muvla.config.sizes import get_size
from muvla.data.span import require_span
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.checks import require_tokens
from muvla.interventions import parse_intervention
from muvla.probes.jacobians import GRADIENTS
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer
from muvla.training.vision_cache import require_cacheable

SHORT = get_protocol("recall-position3-rh@1")
FRAME = 2 * get_size("tiny").patches  # V·P


def stack(k, stride=1, **fields):
    further = {f"memory.{name}": value for name, value in fields.items()}
    return {
        "memory.kind": "frame_stack",
        "memory.k": k,
        "memory.stride": stride,
        "memory.frame_tokens": FRAME,
        "model.reserve": 4 * FRAME,
    } | further


FIRST = {"memory.kind": "first_frame", "memory.frame_tokens": FRAME, "model.reserve": 4 * FRAME}


@pytest.fixture
def policy_of(cell_with):
    return lambda changes: build_policy(cell_with(changes), PLAIN_INTERFACE).eval()


@torch.no_grad()
def played(policy, ticks, intervention=None):
    """Per tick: what was read, the actions, and the frame's own vision tokens."""
    loop, results = Recurrence(policy, 2, intervention and parse_intervention(intervention)), []
    for t in range(ticks):
        frames = random_frames(policy, 2, seed=t)
        output, _ = loop.tick(frames, torch.full((2,), t == 0), Moment([t] * 2, [Phase.DELAY] * 2, ["0", "1"], [0, 1]))
        results.append((loop.read, output.actions, policy.observe(frames).vision))
    return results


def test_one_frame_is_no_memory(policy_of, cell_with):
    """Bit for bit, with one identity."""
    stacked, none = policy_of(stack(1)), policy_of(no_memory() | {"model.reserve": 4 * FRAME})
    for (_, a, _), (_, b, _) in zip(played(stacked, 3), played(none, 3), strict=True):
        assert torch.equal(a, b)
    assert not stacked.memory.has_state and stacked.memory.tokens == 0
    ids = {content_hash(canonical(cell_with(stack(1, stride)))) for stride in (1, 3)}
    assert ids == {content_hash(canonical(cell_with(no_memory() | {"model.reserve": 4 * FRAME})))}


def test_the_read_is_the_vision_of_earlier_ticks_the_newest_first(policy_of):
    ticks = played(policy_of(stack(3, stride=2)), 6)
    for t, (read, _, _) in enumerate(ticks):
        ages = [age for age in (2, 4) if t >= age]
        present = torch.ones(2, 2 * FRAME, dtype=torch.bool) if read.present is None else read.present
        assert present.sum(dim=1).tolist() == [len(ages) * FRAME] * 2, "a frame before the episode is not there"
        for i, age in enumerate(ages):
            rows = slice(i * FRAME, (i + 1) * FRAME)
            assert present[:, rows].all() and torch.equal(read.tokens[:, rows], ticks[t - age][2])


def test_absent_frames_are_not_in_the_sequence(policy_of):
    """Until a frame is old enough, the policy acts as one without memory; then the frame counts."""
    stacked = played(policy_of(stack(4, stride=2)), 3)
    none = played(policy_of(no_memory() | {"model.reserve": 4 * FRAME}), 3)
    for t in (0, 1):
        torch.testing.assert_close(stacked[t][1], none[t][1], rtol=1e-4, atol=1e-5)
    assert (stacked[2][1] - none[2][1]).abs().max() > 1e-3


def test_recomputed_frames_are_the_cached_frames_while_the_towers_stay(policy_of):
    cached, recomputed = (played(policy_of(stack(3, recomputed=flag)), 4) for flag in (False, True))
    for (read, actions, _), (other, others, _) in zip(cached, recomputed, strict=True):
        torch.testing.assert_close(read.tokens[:, :FRAME], other.tokens[:, :FRAME]) if read.present is None else None
        torch.testing.assert_close(actions, others, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recomputed", [False, True])
def test_gradient_reaches_the_towers_through_earlier_frames_if_they_are_recomputed(policy_of, recomputed):
    policy = policy_of(stack(2, recomputed=recomputed))
    loop = Recurrence(policy, 1)
    with torch.no_grad():
        loop.tick(random_frames(policy, 1), torch.tensor([True]), Moment([0], [Phase.CUE], ["0"], [0]))
        now = random_frames(policy, 1, seed=1)
    loop.truncate()
    output, _ = loop.tick(now, torch.tensor([False]), Moment([1], [Phase.CUE], ["0"], [0]))
    output.actions.square().sum().backward()
    reached = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in policy.vision.parameters())
    assert reached == recomputed, "this tick's own frame is a constant here"


def test_the_kept_frame_stays(policy_of):
    for frame in (0, 2):
        ticks = played(policy_of(FIRST | {"memory.frame": frame}), 5)
        for t, (read, _, _) in enumerate(ticks):
            if t <= frame:
                assert not read.present.any(), "not in the sequence before"
            else:
                assert read.present is None and torch.equal(read.tokens, ticks[frame][2])


@pytest.mark.parametrize("changes", [stack(3), stack(3, recomputed=True), FIRST], ids=["stack", "pixels", "first"])
def test_a_skipped_read_takes_the_frames_out_of_the_sequence_and_keeps_the_store(policy_of, changes):
    policy = policy_of(changes)
    plain, skipped = played(policy, 4), played(policy, 4, "skip_read@2")
    none = played(policy_of(no_memory() | {"model.reserve": 4 * FRAME}), 4)
    assert not skipped[2][0].present.any()
    torch.testing.assert_close(skipped[2][1], none[2][1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain[2][1], none[2][1], atol=1e-3) and torch.equal(plain[3][1], skipped[3][1])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (stack(0), "memory.k"),
        (stack(2, stride=0), "memory.stride"),
        (stack(2, frame_tokens=-1), "memory.frame_tokens"),
        (stack(6), "model.reserve"),
        (FIRST | {"memory.frame": -1}, "memory.frame"),
        (FIRST | {"model.reserve": FRAME - 1}, "model.reserve"),
    ],
)
def test_a_cell_refuses_bad_fields(cell_with, changes, field):
    with pytest.raises(MuvlaError) as info:
        cell_with(changes)
    assert info.value.field == field


@pytest.mark.parametrize(
    "changes", [stack(2, frame_tokens=0), stack(2, frame_tokens=3), FIRST | {"memory.frame_tokens": 1}]
)
def test_another_number_of_tokens_per_frame_is_refused_with_the_right_one(policy_of, changes):
    with pytest.raises(MuvlaError) as info:
        policy_of(changes)
    assert info.value.field == "memory.frame_tokens" and str(FRAME) in info.value.expected


def test_a_span_above_the_step_limit_is_refused(cell_with, store):
    """In training by the task's limit, in evaluation by the protocol's."""
    protocol = get_protocol("recall-position3-rh@1")
    for changes, field in ((stack(4, stride=30), "memory.k"), (FIRST | {"memory.frame": 90}, "memory.frame")):
        cell = cell_with(changes)
        with pytest.raises(MuvlaError) as info:
            Trainer(cell, store)
        assert info.value.field == field
    cell = cell_with(stack(4))
    require_span(cell.memory, protocol.task, protocol.id, limit=4)
    with pytest.raises(MuvlaError) as info:
        require_span(cell.memory, protocol.task, protocol.id, limit=3)
    assert info.value.field == "memory.k"


def test_recomputed_frames_and_cached_features_exclude_each_other(cell_with):
    frozen = {"model.vision": "frozen"}
    require_cacheable(cell_with(stack(2) | frozen))
    with pytest.raises(MuvlaError) as info:
        require_cacheable(cell_with(stack(2, recomputed=True) | frozen))
    assert info.value.field == "--cache-vision"


def test_gradients_with_respect_to_pixels_are_refused(subject_of, cell_with):
    with pytest.raises(MuvlaError) as info:
        GRADIENTS.read(subject_of(cell_with(stack(2, recomputed=True)), 1))
    assert info.value.field == "probe gradients"


def test_interventions_on_numbers_are_refused_for_pixels(policy_of):
    policy = policy_of(stack(2, recomputed=True))
    require_tokens(parse_intervention("empty"), policy)
    require_tokens(parse_intervention("zero/read"), policy)
    with pytest.raises(MuvlaError) as info:
        require_tokens(parse_intervention("zero"), policy)
    assert info.value.field == "intervention zero"
