"""One pass of the language model per window, for memories that need no pass per tick."""

from dataclasses import replace

import pytest
import torch

from helpers.policies import with_output
from helpers.studies import at
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import dummy, no_memory
from muvla.errors import MuvlaError
from muvla.training.one_pass import require_one_pass
from muvla.training.trainer import Trainer
from muvla.utils.provenance import provenance

CELLS = {
    "none": no_memory(),
    "dummy": dummy(4),
    "gru fuse": {"memory.kind": "gru", "memory.place": "fuse", "memory.width": 16, "truncation": 4},
    "fast_weights modulate": {"memory.kind": "fast_weights", "memory.place": "modulate", "memory.width": 16},
    "bank fuse": {"memory.kind": "bank", "memory.place": "fuse", "memory.perceptual_width": 8, "memory.capacity": 3},
    "feature_fifo modulate": {"memory.kind": "feature_fifo", "memory.place": "modulate", "memory.capacity": 3},
    "gru emptied": {"memory.kind": "gru", "memory.emptied": True, "memory.width": 16},
}


@pytest.mark.parametrize("name", CELLS)
def test_it_computes_loss_and_gradient_of_a_pass_per_tick(store, cell_with, name):
    """In double precision, over two windows, with fewer calls of the language model."""
    results = []
    for one_pass in (False, True):
        trainer = Trainer(cell_with(CELLS[name]), store, one_pass=one_pass)
        torch.manual_seed(0)
        with_output(trainer.policy.double())
        trainer.recurrence.state = trainer.policy.memory.init_state(len(trainer.slots))
        calls = []
        trainer.policy.language.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        losses = [trainer.backward(doubled(trainer.stream.window(8))) for _ in range(2)]
        gradients = {n: p.grad for n, p in trainer.policy.named_parameters() if p.grad is not None}
        results.append((losses, gradients, len(calls), trainer.recurrence.state))
    (losses, gradients, calls, state), (others, other_gradients, passes, other_state) = results
    assert (calls, passes) == (16, 2)
    assert losses == pytest.approx(others, rel=1e-9) and gradients.keys() == other_gradients.keys()
    for n, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[n], rtol=1e-7, atol=1e-9)
    for leaf, value in state.items():
        torch.testing.assert_close(value, other_state[leaf])


def doubled(window):
    return replace(window, proprio=window.proprio.double(), label=window.label.double(), weight=window.weight.double())


def test_a_training_counts_its_ticks(store, cell_with):
    trainer = Trainer(cell_with(CELLS["gru fuse"]), store, one_pass=True)
    trainer.step(), trainer.step()
    assert trainer.update == 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory.kind": "gru"},
        no_memory() | {"model.head": "diffusion", "data.tail": "repeat"},
        {"memory.kind": "gru", "memory.place": "fuse", "intervention": "zero"},
    ],
    ids=["tokens", "gru in the context", "diffusion", "intervention"],
)
def test_a_cell_that_needs_a_pass_per_tick_is_refused(store, cell_with, changes):
    with pytest.raises(MuvlaError) as info:
        require_one_pass(cell_with(changes))
    assert info.value.field == "--one-pass"
    with pytest.raises(MuvlaError) as info:
        require_one_pass(cell_with(no_memory()), ranks=2)
    assert info.value.field == "--one-pass"


def test_provenance_says_so_and_a_study_with_tokens_is_refused(study_file, tmp_path, capsys):
    assert provenance("cpu", one_pass=True) == provenance("cpu") | {"one_pass": True}
    for verb in ("train", "sweep"):
        assert main([verb, str(study_file), *at(tmp_path), "--device", "cpu", "--one-pass"]) == EXIT_BAD_INPUT
        assert "--one-pass" in capsys.readouterr().err
