"""The same code on a CUDA device: the guard, the trainer, the evaluation."""

import pytest
import torch

from helpers.policies import PADDED_INTERFACE, PLAIN_INTERFACE, random_frames, skip_unless_usable
from muvla.checkpoints.build import build_policy
from muvla.data.normalization import Statistics
from muvla.envs.registry import open_env
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.models.attention_plan import AttentionPlan
from muvla.models.backends import BACKENDS
from muvla.models.leak_test import leak_test
from muvla.models.policy import Encoded
from muvla.models.sequence import Layout, Segment
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
def test_context_leaks_exactly_nothing_and_full_does(cell_with, backend, dtype, interface):
    skip_unless_usable(backend, "cuda", dtype)
    for guard in ("context", "full"):
        policy = build_policy(cell_with({"model.attention": backend, "model.guard": guard}), interface)
        encoded = random_frames(policy, 8)
        tensors = (t.detach().to("cuda", dtype) for t in encoded.tensors())
        moved = Encoded(*tensors, encoded.text_lengths.cuda())
        leak = leak_test(policy.to("cuda", dtype), moved, torch.randn(8, 4, 96, device="cuda", dtype=dtype))
        assert (leak == 0.0) == (guard == "context")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_gradients_agree_with_dense(backend, padded, key_heads):
    """In half precision, with those of `dense` in float32 on the same numbers; over more than one block of 128."""
    skip_unless_usable(backend, "cuda", torch.float16)
    layout = Layout(vision=150, memory=8, text=9, action=14, reserve=8, padded=padded)
    segments = layout.segments(torch.tensor([2, 9, 5] if padded else [9], device="cuda"))
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, heads, layout.length, 64) for heads in (4, key_heads, key_heads, 4)]
    *qkv, weight = (torch.randn(shape, generator=generator).to("cuda", torch.float16) for shape in shapes)
    weight = weight * (segments != Segment.PAD)[:, None, :, None]
    gradients = []
    for name, dtype in ((backend, torch.float16), ("dense", torch.float32)):
        q, k, v = leaves = [x.to(dtype).requires_grad_() for x in qkv]
        out = BACKENDS[name](q, k, v, AttentionPlan(layout, segments, "context", name), 0.125, key_heads != 4)
        gradients.append(torch.autograd.grad((out * weight).sum(), leaves))
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine.float(), reference, rtol=1e-2, atol=1e-2 * reference.abs().max().item())


def test_training_agrees_with_the_cpu(store, cell_with, tmp_path):
    """Same parameters, frames and order; losses agree to rounding."""
    cell = cell_with({"budget.updates": 3})
    losses = {}
    for device in ("cpu", "cuda"):
        trainer = Trainer(cell, store, device=device)
        losses[device] = [trainer.step()[0] for _ in range(3)]
        train_to_the_end(trainer, tmp_path / device)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_evaluation_under_an_intervention(store, cell_with):
    trainer = Trainer(cell_with(), store, device="cuda")
    one = get_protocol("recall-position3-rh@1")
    rows = []
    actor = PolicyActor(trainer.policy, Statistics.from_store(store), one, parse_intervention("noise_matched"))
    rollout = Rollout(actor, lambda: open_env(one.task))
    rollout.run(range(one.seed, one.seed + 60), rows.append)
    assert len(rows) == 60 and not any(r.error for r in rows)
