"""Random observations for policies, and the attention backends that a test may use."""

from __future__ import annotations

import pytest
import torch

from muvla.checkpoints.build import build_policy
from muvla.envs.phases import Phase
from muvla.memory.zero_linear import ZeroLinear
from muvla.models.backends import BACKENDS, obstacle, usable_backends
from muvla.models.policy import Encoded, Interface, Policy
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer

ON_CPU = usable_backends("cpu", torch.float32)  # attention backends


EVERYWHERE = [*ON_CPU, *(pytest.param(name, marks=pytest.mark.gpu) for name in BACKENDS if name not in ON_CPU)]


TEXT = 12


PADDED_INTERFACE = Interface(cameras=2, proprio_dim=2, action_dim=2, text=TEXT, text_padded=True)


PLAIN_INTERFACE = Interface(cameras=2, proprio_dim=2, action_dim=2, text=6, text_padded=False)


PROMPTS = ["Touch it.", "Touch the marked disc.", "Touch the disc of the same color.", "Wait, then touch the cube."]


def skip_unless_usable(backend: str, device: str, dtype: torch.dtype) -> None:
    if problem := obstacle(backend, device, dtype):
        pytest.skip(str(problem))


def random_frames(policy: Policy, slots: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Encoded:
    """Encoded random observations; prompts of different lengths where the policy's interface is padded."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (slots, 2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    proprio = torch.randn(slots, 2, generator=generator, dtype=dtype)
    prompts = PROMPTS if policy.interface.text_padded else [PROMPTS[1]]
    ids, lengths = policy.encode_text([prompts[i % len(prompts)] for i in range(slots)])
    return policy.encode(images, proprio, ids, lengths)


@torch.no_grad()
def with_output(policy: Policy) -> Policy:
    """The policy with numbers in the layers of its memory that start at zero, so that reads change the actions."""
    for layer in policy.memory.modules():
        if isinstance(layer, ZeroLinear):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return policy


def frames(n=3):
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 2, 3, 32, 32), dtype=torch.uint8, generator=g)
    return images, torch.randn(n, 2, generator=g)


def tokens_read(policy, kind, seeds=(0, 1), ticks=4, frame_seeds=None):
    """(ticks, B, m, D) tokens read in one episode per slot, and the actions."""
    loop = Recurrence(policy, len(seeds), kind)
    read, actions = [], []
    with torch.no_grad():
        for t in range(ticks):
            moment = Moment([t] * len(seeds), [Phase.DELAY] * len(seeds), [str(s) for s in seeds], list(seeds))
            frames = random_frames(policy, len(seeds), seed=t)
            if frame_seeds is not None:
                parts = [random_frames(policy, 1, seed=100 * f + t) for f in frame_seeds]
                frames = type(frames)(
                    *(torch.cat([getattr(p, n) for p in parts]) for n in ("prefix", "text", "stop", "text_lengths"))
                )
            output, tokens = loop.tick(frames, torch.full((len(seeds),), t == 0), moment)
            read.append(tokens)
            actions.append(output.actions)
    return torch.stack(read), torch.stack(actions)


def gradients(cell, store, recompute):
    trainer = Trainer(cell, store, checkpoint_gradients=recompute)
    loss = trainer.backward(trainer.stream.window(cell.budget.window))
    return loss, [p.grad for p in trainer.parameters], trainer


def random_episode(cell, ticks):
    """A policy in double precision, and an episode of `ticks` random frames."""
    policy = build_policy(cell, PLAIN_INTERFACE).double().eval()
    with torch.no_grad():
        return policy, random_frames(policy, ticks, dtype=torch.float64)
