"""Out of memory: one error that names what would help, by how much; nothing that was written is lost."""

import dataclasses

import pytest
import torch

from helpers.errors import refused
from helpers.studies import STUDY
from muvla.checkpoints import native as ckpt
from muvla.config import tbptt, train_id
from muvla.errors import MuvlaError
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training.oom import estimate_activations, is_out_of_memory, list_savings, memory_explained
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried")
INJECTED = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), ON_CPU, MemoryError("Unable")]


@pytest.mark.slow
@pytest.mark.parametrize("error", INJECTED, ids=["GPU", "CPU", "NumPy"])
def test_it_names_the_knobs_and_a_rerun_continues(store, cell_with, tmp_path, monkeypatch, error):
    cell = cell_with({"budget.updates": 4})
    run = Run(tmp_path, store.path.parent, train_id(cell, store.sha256, None))
    backward = Trainer.backward

    def fails_at_the_third(trainer, *arguments):
        if trainer.update == 2:
            raise error
        return backward(trainer, *arguments)

    monkeypatch.setattr(Trainer, "backward", fails_at_the_third)
    with pytest.raises(MuvlaError) as raised, run.working():
        train_cell(run, cell, store, "cpu")
    assert raised.value.field == "memory"
    for knob in (
        "--gradient-checkpointing",
        "budget.slots=2: 50%",
        "budget.window=4, truncation=4: 50%",
        "truncation=4",
        "model.precision=bfloat16: 50%",
        "data.cameras=1, of 2",
    ):
        assert knob in raised.value.remedy
    assert str(error)[:20] in raised.value.got and "GB" in raised.value.expected
    assert run.failure["kind"] == "failed" and "budget.slots" in run.failure["error"] and not run.failure["traceback"]
    assert ckpt.latest(run.folder / "checkpoints").name == "update-000002"
    monkeypatch.setattr(Trainer, "backward", backward)
    run.clear_failure()
    train_cell(run, cell, store, "cpu")
    alone = ckpt.load(train_to_the_end(Trainer(cell, store), tmp_path / "alone"))
    assert all(torch.equal(value, run.checkpoint().tensors["model"][n]) for n, value in alone.tensors["model"].items())


def test_what_torch_really_raises_is_known_and_other_errors_pass(base, store):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)
    interface = Trainer(base, store).interface
    for other in (RuntimeError("shapes cannot be multiplied"), KeyError("memory")):
        with pytest.raises(type(other)), memory_explained(base, interface, False):
            raise other


def held(trainer: Trainer) -> int:
    """Bytes that the graphs of a window hold until its backward passes, parameters and what is shared counted out."""
    own = {p.untyped_storage().data_ptr() for p in trainer.policy.parameters()}
    storages: dict[int, int] = {}
    kept = []  # alive, so that no address is used twice

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.backward(trainer.stream.window(trainer.cell.budget.window))
    return sum(storages.values())


@pytest.mark.parametrize("change", [{}, {"budget.slots": 2}, {"budget.window": 4, "truncation": 4}], ids=str)
def test_the_estimate_is_about_what_the_graphs_hold(store, cell_with, change):
    cell = cell_with(change)
    trainer = Trainer(cell, store)
    assert 0.5 < estimate_activations(cell, trainer.interface).total / held(trainer) < 2


def test_what_each_knob_saves(store, cell_with):
    """Of two halves of one sum: K takes the language model's alone, the window the towers' too."""
    cell = cell_with(tbptt(4, 4))
    interface = Trainer(cell, store).interface
    saved, used = list_savings(cell, interface, False), estimate_activations(cell, interface)
    assert saved["truncation=2"] == pytest.approx(used.language / 2 / used.total)
    assert saved["budget.window=4"] == pytest.approx(used.towers / 2 / used.total), "K = 4 ticks live as before"
    assert list(saved.values()) == sorted(saved.values(), reverse=True)
    of_the_episode = estimate_activations(cell_with(tbptt(4, 4) | {"truncation_from": "episode"}), interface)
    assert of_the_episode.ticks == 8 and of_the_episode.language == 2 * used.language, "all ticks of the window live"


def test_frozen_towers_hold_nothing(store, cell_with):
    """Nor does the estimate of what the graphs hold lose its sense by it."""
    frozen = cell_with({"model.vision": "frozen"})
    trainer = Trainer(frozen, store)
    used, of_trained = (
        estimate_activations(frozen, trainer.interface),
        estimate_activations(cell_with(), trainer.interface),
    )
    assert used.towers == 0 < of_trained.towers and used.language == of_trained.language
    assert 0.5 < used.total / held(trainer) < 2
    assert list_savings(frozen, trainer.interface, False)["truncation=4"] == pytest.approx(0.5), (
        "all is the language model's"
    )


def test_of_several_ranks_it_is_ones_part(store, base):
    interface = Trainer(base, store).interface
    two, alone = estimate_activations(base, interface, ranks=2), estimate_activations(base, interface)
    assert (two.slots, two.images, two.total) == (alone.slots / 2, alone.images / 2, alone.total / 2)
    with refused("memory") as info, memory_explained(base, interface, False, 2):
        raise MemoryError("Unable")
    assert "2 slots" in info.value.expected and "32 images" in info.value.expected
    assert "budget.slots=2" in info.value.remedy


def test_a_knob_that_is_turned_or_cannot_be_is_not_named(store, cell_with):
    cell = cell_with(tbptt(1, 4) | {"budget.slots": 1, "model.precision": "bfloat16", "data.cameras": 1})
    assert list(list_savings(cell, Trainer(cell, store).interface, True)) == ["budget.window=4"]


@pytest.mark.slow
def test_in_a_sweep_it_costs_its_cell_alone(tmp_path):
    """A language model that no machine has the memory for, beside one of the tiny size."""
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    study = load_study(tmp_path)
    variants = {"huge": tbptt(8, 4) | {"model.size.mlp": 10**11}, "K=8": tbptt(8, 4)}
    study = dataclasses.replace(study, variants=variants, factors=(*study.factors, "model.size.mlp"), interventions=())
    result = run_study(
        study, Ledger(tmp_path / "runs", tmp_path / "data"), SweepOptions(processes=1, track=False), lambda _: None
    )
    assert {e.item.variant: e.state for e in result.entries} == {"huge": "failed", "K=8": "done"}
    (failed,) = result.failed
    assert "budget.slots=2" in failed.run.failure["error"]
