"""Computing blocks again in the backward pass changes what is kept, and no number."""

import pytest
import torch

from helpers.policies import gradients
from muvla.config import ema, no_memory, tbptt
from muvla.training.trainer import Trainer


@pytest.mark.parametrize(
    "change",
    [tbptt(8, 4), tbptt(2, 4), tbptt(1, 4), ema(0.1, 4), no_memory()],
    ids=["K=8", "K=2", "K=1", "ema", "none"],
)
def test_gradients_are_the_same_bit_for_bit(store, cell_with, change):
    """With K graphs alive at once, and with the gradients of all blocks collected before vision's backward."""
    kept, computed_again = (gradients(cell_with(change), store, recompute) for recompute in (False, True))
    assert kept[0] == computed_again[0]
    for name, one, other in zip(kept[2].names, kept[1], computed_again[1], strict=True):
        assert (one is None and other is None) or torch.equal(one, other), name


@pytest.mark.parametrize(("recompute", "times"), [(False, 1), (True, 2)])
def test_blocks_are_computed_twice(store, base, recompute, times):
    """Once forwards, and once more on the way back, in every part."""
    trainer = Trainer(base, store, checkpoint_gradients=recompute)
    policy, calls = trainer.policy, []
    for name, block in (
        ("language", policy.language.layers[0]),
        ("dino", policy.vision.dino.encoder.layer[0]),
        ("siglip", policy.vision.siglip.encoder.layers[0]),
    ):
        block.mlp.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    trainer.backward(trainer.stream.window(8))
    assert {name: calls.count(name) for name in calls} == {"language": 8 * times, "dino": times, "siglip": times}
