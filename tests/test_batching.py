"""A slot's result does not depend on its neighbours or its index."""

import pytest
import torch

from helpers.policies import ON_CPU, PADDED_INTERFACE, PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.models.policy import Encoded


def rows(encoded, index):
    return Encoded(*(t[index] for t in (*encoded.tensors(), encoded.text_lengths)))


def outputs(policy, encoded, memory, noise=None):
    out = policy.step(encoded, memory, noise)
    return out.actions, out.memory


@pytest.mark.parametrize("guard", ["context", "memory_only", "full"])
@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
@pytest.mark.parametrize("slots", [7, 16])
def test_bitwise_independent_of_neighbours_and_index(cell_with, guard, backend, interface, slots):
    policy = build_policy(cell_with({"model.guard": guard, "model.attention": backend}), interface).eval()
    with torch.no_grad():
        encoded, memory = random_frames(policy, slots), torch.randn(slots, 4, 96)
        reference = outputs(policy, encoded, memory)
        order = torch.randperm(slots)
        permuted = outputs(policy, rows(encoded, order), memory[order])
        for a, b in zip(reference, permuted, strict=True):
            assert torch.equal(a[order], b), "index"
        others = random_frames(policy, slots, seed=9)
        for mine, theirs in zip(encoded.tensors(), others.tensors(), strict=True):
            theirs[0] = mine[0]
        others.text_lengths[0] = encoded.text_lengths[0]
        strangers = torch.randn(slots, 4, 96)
        strangers[0] = memory[0]
        for a, b in zip(reference, outputs(policy, others, strangers), strict=True):
            assert torch.equal(a[0], b[0]), "neighbours"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
def test_a_diffusion_head_and_film_do_not_mix_slots(cell_with, interface, precision):
    changes = {"model.head": "diffusion", "data.tail": "repeat", "model.film": True, "model.precision": precision}
    policy = build_policy(cell_with(changes), interface).eval()
    with torch.no_grad():
        encoded, memory, noise = random_frames(policy, 7), torch.randn(7, 4, 96), torch.randn(7, 2, 2)
        reference = outputs(policy, encoded, memory, noise)
        order = torch.randperm(7)
        permuted = outputs(policy, rows(encoded, order), memory[order], noise[order])
        for a, b in zip(reference, permuted, strict=True):
            assert torch.equal(a[order], b)


@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
def test_batch_one_agrees_to_1e_5(cell_with, interface):
    policy = build_policy(cell_with(), interface).eval()
    with torch.no_grad():
        encoded, memory = random_frames(policy, 16), torch.randn(16, 4, 96)
        actions, written = outputs(policy, encoded, memory)
        for i in range(16):
            one = outputs(policy, rows(encoded, slice(i, i + 1)), memory[i : i + 1])
            torch.testing.assert_close(one[0], actions[i : i + 1], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(one[1], written[i : i + 1], rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_batch_one_to_1e_10_in_float64(cell_with):
    totals = []
    for groups in ([range(8)], [[i] for i in range(8)]):
        policy = build_policy(cell_with(), PADDED_INTERFACE).double()
        memory = torch.randn(8, 4, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for group in groups:
            encoded = random_frames(policy, 8, dtype=torch.float64)
            index = torch.tensor(list(group))
            actions, written = outputs(policy, rows(encoded, index), memory[index])
            (actions.square().sum() + written.square().sum()).backward()
        totals.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    for name, grad in totals[0].items():
        # Relative to the parameter's own gradient; that of a key bias is exactly zero in theory, so it needs a floor.
        scale = max(grad.abs().max().item(), 1e-3)
        assert (grad - totals[1][name]).abs().max().item() <= 1e-10 * scale, name
