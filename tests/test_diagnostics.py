"""What training tells of itself: known where it was planted, and nothing is changed by looking."""

import numpy as np
import pytest
import torch

from muvla.config import dummy, ema, no_memory, tbptt
from muvla.data.collect import collect
from muvla.envs.phases import Phase
from muvla.interventions import parse_intervention
from muvla.training import run as training
from muvla.training.diagnostics import Diagnosis, get_part, get_peak_memory
from muvla.training.options import TrainingOptions
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from muvla.utils.io import read_lines


def diagnosed(trainer: Trainer) -> dict:
    diagnosis = Diagnosis(trainer.names, trainer.parameters)
    trainer.step(diagnosis)
    return diagnosis.row


def row_of(cell, store) -> dict:
    return diagnosed(Trainer(cell, store, parse_intervention(cell.intervention)))


@pytest.mark.parametrize(
    ("change", "checkpointing"),
    [
        pytest.param(
            change,
            checkpointing,
            id=name + " checkpointing" * checkpointing,
            marks=[pytest.mark.slow] * (checkpointing or name not in ("K=2", "none")),
        )
        for checkpointing in (False, True)
        for name, change in {
            "K=8": tbptt(8, 4),
            "K=2": tbptt(2, 4),
            "from the episode": tbptt(2, 4) | {"truncation_from": "episode"},
            "ema": ema(0.1, 4),
            "dummy": dummy(4),
            "none": no_memory(),
            "zeroed": {"intervention": "zero"},
            "diffusion": {"model.head": "diffusion", "data.tail": "repeat"},
        }.items()
    ],
)
def test_looking_changes_nothing(store, cell_with, change, checkpointing):
    """Parameters, memory and losses with diagnostics at every update are those without, bit for bit."""
    cell = cell_with(change)
    seen, unseen = (
        Trainer(cell, store, parse_intervention(cell.intervention), checkpoint_gradients=checkpointing)
        for _ in range(2)
    )
    for _ in range(2):
        diagnosis = Diagnosis(seen.names, seen.parameters)
        assert seen.step(diagnosis) == unseen.step()
        assert diagnosis.row["loss_by_chunk"]
    for (name, a), b in zip(seen.policy.named_parameters(), unseen.policy.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(seen.recurrence.state[k], unseen.recurrence.state[k]) for k in seen.recurrence.state)


@pytest.mark.parametrize(("K", "reach"), [(1, 0), (2, 1), (4, 3), (8, 7)])
def test_credit_reaches_as_far_as_the_truncation_block_and_is_exactly_zero_beyond(cell_with, data_root, K, reach):
    """On a window within one episode."""
    task = {"data.dataset.task.delay": [30, 30], "data.dataset.episodes": 2}
    cell = cell_with(task | tbptt(K, 4) | {"budget.slots": 1})
    trainer = Trainer(cell, collect(cell.data.dataset, data_root))
    trainer.stream.load_state({"ticks": 1, "visit": [0], "step": [4]})
    row = diagnosed(trainer)
    read, written = row["gradient_read"], row["gradient_written"]
    assert len(read) == 8 and len(written) == 7
    assert all(norm > 0 for norm in read[: reach + 1]) and all(norm > 0 for norm in written[:reach])
    assert read[reach + 1 :] == [0.0] * (7 - reach) and written[reach:] == [0.0] * (7 - reach)


def test_an_episodes_start_ends_it_too(store, base):
    window = Trainer(base, store).stream.window(8)
    assert window.is_first[5:].any(dim=0).all()
    read = row_of(base, store)["gradient_read"]
    assert read[2] > 0 and not any(read[3:]), "every slot has begun an episode within the last three ticks"


def test_credit_from_the_episodes_own_blocks_reaches_some_slots_alone(store, cell_with):
    """Blocks of two ticks of each slot's own episode: nothing is further than one tick from its loss."""
    row = row_of(cell_with(tbptt(2, 4) | {"truncation_from": "episode"}), store)
    assert row["gradient_written"][1:] == [0.0] * 6


def test_what_is_not_carried_gets_no_credit(store, cell_with):
    row = row_of(cell_with(dummy(4)), store)
    assert row["gradient_read"][0] > 0 and not any(row["gradient_read"][1:]) and not any(row["gradient_written"])
    assert not {"gradient_read", "gradient_written", "write_ratio"} & row_of(cell_with(no_memory()), store).keys()


def test_the_gradient_is_that_of_the_last_ticks_loss(store, cell_with):
    """By finite differences, through the only tick of a window: α·‖∂loss/∂read‖ along the gradient itself."""
    trainer = Trainer(cell_with(tbptt(1, 4) | {"budget.window": 1}), store)
    window, tokens = trainer.stream.window(1), trainer.policy.memory.initial.detach().expand(4, -1, -1)
    with torch.no_grad():
        encoded = trainer.encode(window)

    def loss(read):
        error = (trainer.policy.step(encoded, read).actions - window.label[0]).abs() * window.weight[0][..., None]
        return error.sum() / window.label.numel()

    read = tokens.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(read), read)
    assert row_of(trainer.cell, store)["gradient_read"] == [pytest.approx(gradient.norm().item(), rel=1e-4)]


def test_the_write_ratio_where_it_is_known(store, cell_with):
    """A dummy writes what was there. A blend of α moves α times as far as one that replaces: exactly so in an episode's
    first tick, where both read the same."""
    assert row_of(cell_with(dummy(4)), store)["write_ratio"] == 0.0
    ratios = [row_of(cell_with(ema(a, 4) | {"budget.window": 1}), store)["write_ratio"] for a in (1.0, 0.1)]
    assert ratios[0] > 0 and ratios[1] == pytest.approx(0.1 * ratios[0], rel=1e-5)


def test_losses_add_up(store, cell_with):
    """By chunk entry and by phase, means of what is supervised: weighted by how much that is, they are the loss. With
    H = 2 the last frame of a delay has an entry that is executed."""
    cell = cell_with({"data.labels": "masked"})
    trainer = Trainer(cell, store)
    start = trainer.stream.state()
    window = trainer.stream.window(8)
    trainer.stream.load_state(start)
    weight, diagnosis = window.weight.numpy(), Diagnosis(trainer.names, trainer.parameters)
    loss, _ = trainer.step(diagnosis)
    row = diagnosis.row
    by_chunk = sum(w * m for w, m in zip(weight.sum(axis=(0, 1)), row["loss_by_chunk"], strict=True))
    assert by_chunk / weight.size == pytest.approx(loss, rel=1e-5)
    share = {p.name.lower(): weight[window.phase == p].sum() for p in Phase}
    assert sum(share[name] * mean for name, mean in row["loss_by_phase"].items()) / weight.size == pytest.approx(
        loss, rel=1e-5
    )
    assert set(row["loss_by_phase"]) == {name for name, n in share.items() if n} == {"delay", "decision"}


def test_the_loss_at_the_first_decision_is_of_that_step_alone(store, cell_with):
    """With H = 1, windows of one tick and one slot, the loss of a window is the loss of its frame."""
    trainer = Trainer(cell_with(tbptt(1, 4) | {"budget.window": 1, "budget.slots": 1, "model.chunk": 1}), store)
    windows, seen, backward = [], {}, trainer.backward
    trainer.backward = lambda window: (windows.append(window), backward(window))[1]
    for _ in range(30):
        diagnosis = Diagnosis(trainer.names, trainer.parameters)
        loss, _ = trainer.step(diagnosis)
        line = store.index[windows[-1].episode.item()]
        is_first = windows[-1].tick.item() == line["cue_length"] + line["delay_length"]
        assert windows[-1].starts_decision.item() == is_first
        seen[is_first] = diagnosis.row.get("loss_at_first_decision")
        assert not is_first or seen[True] == pytest.approx(loss, rel=1e-5)
    assert seen[False] is None and seen[True] > 0


def test_without_known_phases_there_are_no_losses_by_phase(store, base, monkeypatch):
    trainer = Trainer(base, store)
    window = trainer.stream.window(8)
    window.phase[:] = Phase.UNKNOWN
    monkeypatch.setattr(trainer.stream, "window", lambda ticks: window)
    row = diagnosed(trainer)
    assert "loss_by_phase" not in row and all(np.isfinite(row["loss_by_chunk"]))


def test_what_no_entry_supervises_has_no_loss(store, base, monkeypatch):
    trainer = Trainer(base, store)
    window = trainer.stream.window(8)
    window.weight[..., 1] = 0
    monkeypatch.setattr(trainer.stream, "window", lambda ticks: window)
    first, second = diagnosed(trainer)["loss_by_chunk"]
    assert first > 0 and second is None


def test_update_ratios_by_part(store, base):
    trainer = Trainer(base, store)
    before = {n: p.detach().clone() for n, p in zip(trainer.names, trainer.parameters, strict=True)}
    ratios = diagnosed(trainer)["update_ratio"]
    assert set(ratios) == {"vision.dino", "vision.siglip", "vision.projector", "proprio", "language", "head", "memory"}
    after = dict(zip(trainer.names, trainer.parameters, strict=True))
    for part, ratio in ratios.items():
        own = [n for n in before if get_part(n) == part]
        moved = sum((after[n] - before[n]).square().sum() for n in own) / sum(before[n].square().sum() for n in own)
        assert ratio == pytest.approx(moved.sqrt().item(), rel=1e-4)


def test_a_memory_of_zeros_has_no_ratio(store, cell_with):
    row = row_of(cell_with({"memory.init_std": 0.0, "budget.window": 1, "truncation": 1}), store)
    assert "write_ratio" not in row and "memory" not in row["update_ratio"]


def test_peak_memory_is_megabytes_of_this_process():
    assert 100 < get_peak_memory(torch.device("cpu")) < 100_000


def test_the_log_has_them_unless_they_are_switched_off(store, cell_with, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 2)
    cell = cell_with({"budget.updates": 3})
    for name, diagnostics in (("on", True), ("off", False)):
        train_to_the_end(Trainer(cell, store), tmp_path / name, options=TrainingOptions(diagnostics=diagnostics))
    on, off = (read_lines(tmp_path / name / "train.jsonl") for name in ("on", "off"))
    assert [r["update"] for r in on] == [2, 3]
    for full, plain in zip(on, off, strict=True):
        assert {k: full[k] for k in plain} | {"frames_per_second": 0} == plain | {"frames_per_second": 0}
        assert full.keys() - plain.keys() == {
            "loss_by_chunk",
            "loss_by_phase",
            "loss_at_first_decision",
            "gradient_read",
            "gradient_written",
            "write_ratio",
            "update_ratio",
            "peak_memory_mb",
        }
