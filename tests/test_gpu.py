"""The same code on a CUDA device: the guard, the trainer, the evaluation."""

import pytest
import torch
from conftest import PADDED_INTERFACE, random_frames

from muvla.data.statistics import Statistics
from muvla.envs.registry import open_env
from muvla.evaluation.protocol import protocol
from muvla.evaluation.rollout import Rollout
from muvla.interventions import intervention
from muvla.models.attention import BACKENDS
from muvla.models.build import build_policy
from muvla.models.policy import Encoded, guard_canary
from muvla.training.loop import Trainer
from muvla.training.run import train_to_the_end

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_context_leaks_exactly_nothing(cell_with, backend):
    policy = build_policy(cell_with({"model.attention": backend}), PADDED_INTERFACE)
    encoded = random_frames(policy, 8)
    moved = Encoded(*(t.detach().cuda() for t in (*encoded.tensors(), encoded.text_lengths)))
    assert guard_canary(policy.cuda(), moved, torch.randn(8, 4, 96, device="cuda")) == 0.0


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
    one = protocol("recall-position3-rh@1")
    rows = []
    rollout = Rollout(
        trainer.policy, Statistics.of(store), one, lambda: open_env(one.task), intervention("noise_matched")
    )
    rollout.run(range(one.seed, one.seed + 60), rows.append)
    assert len(rows) == 60 and not any(r.error for r in rows)
