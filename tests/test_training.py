"""The loop: knobs bite, resume is exact, damage and NaN stop it."""

import dataclasses
import inspect
import json
import math
from functools import lru_cache

import pytest
import torch

from muvla.checkpoints import native as ckpt
from muvla.config import dummy, ema, no_memory, tbptt
from muvla.config.serialization import flatten, replace
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.interventions import parse_intervention
from muvla.recurrence import Recurrence
from muvla.training.resume import resume
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from muvla.utils import io as files
from muvla.utils.io import read_lines


def parameters_after(cell, store, updates=2):
    trainer = Trainer(cell, store, parse_intervention(cell.intervention))
    for _ in range(updates):
        trainer.step()
    return {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_the_example_of_the_trainer_runs(tmp_path, monkeypatch, capsys):
    """The indented lines of the class docstring, as they stand there."""
    lines = inspect.cleandoc(Trainer.__doc__).splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    ") and not line.startswith("    `"))
    code = code.split("cell: the canonical cell.")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "the docstring of Trainer", "exec"), {})
    assert "update 5: loss" in capsys.readouterr().out


def test_two_runs_of_one_cell_are_bit_identical(store, base):
    assert same(parameters_after(base, store), parameters_after(base, store))


KNOBS = {
    "model.chunk": 3,
    "model.guard": "full",
    "model.memory_positions": "shift",
    "model.reserve": 7,
    "data.labels": "recorded",
    "data.tail": "repeat",
    "memory.kind": "dummy",
    "memory.m": 3,
    "memory.alpha": 0.5,
    "memory.init_std": 0.5,
    "truncation": 2,
    "truncation_from": "episode",
    "budget.slots": 3,
    "budget.window": 16,
    "budget.updates": 9,
    "budget.regime": "published",
    "optimizer.lr": 3e-3,
    "optimizer.betas": [0.5, 0.95],
    "optimizer.weight_decay": 0.5,
    "optimizer.warmup": 0.5,
    "optimizer.final": 0.9,
    "optimizer.clip": None,
    "intervention": "zero",
    "model.images": "released",
    "model.precision": "bfloat16",
    "model.proprio": False,
    "model.head": "diffusion",
    "data.cameras": 1,
    "data.first_image": True,
    "data.decision_steps": 1,
    "data.augmentation": "frame",
    "data.order": "shuffled",
    "data.group": 3,
    "data.group_padding": "repeat",
    "data.statistics": "recorded",
    "model.film": True,
    "model.vision": "frozen",
    "model.class_token": "one",
    "memory.gate": "learned",
    "data.instruction": "with_target",
    "data.crop": "diagonal",
    "optimizer.warmup_from": "tenth",
    "seed": 1,
}
# What has no say in the base cell, or no place there, and the cell where it has.
WHERE = {
    "budget.regime": tbptt(2, 4),
    "truncation_from": tbptt(2, 4),
    "model.head": {"data.tail": "repeat"},
    "data.order": no_memory(),
    "data.group": {"data.order": "grouped"},
    "data.group_padding": {"data.order": "grouped"},
    "data.augmentation": {"model.images": "released"},
    "data.crop": {"model.images": "released", "data.augmentation": "frame"},
    "data.instruction": {"model.prompt_tokens": 24},
    "optimizer.warmup_from": {"optimizer.warmup": 0.5},
}


@pytest.fixture(scope="module")
def unturned(store):
    """Parameters after two updates of a cell, trained once for all knobs that it has."""
    return lru_cache(lambda cell: parameters_after(cell, store))


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_bites(store, base, unturned, knob):
    """Turned, it trains another policy: no field of a cell is decoration."""
    cell = replace(base, WHERE.get(knob, {}))
    changed = parameters_after(replace(cell, {knob: KNOBS[knob]}), store)
    assert not same(changed, unturned(cell)), knob


def test_the_list_of_knobs_is_complete(base):
    """A new field of a cell needs a line in KNOBS, or a word here on why it has none."""
    elsewhere = {
        name for name in flatten(base) if name.startswith(("model.size.", "data.dataset."))
    }  # the anatomy, the
    # task and the data: other parameters and other frames, tested where they are defined
    elsewhere |= {name for name in flatten(base) if name.startswith(("start.", "lora."))}  # tests/test_start.py
    elsewhere |= {"data.mixture", "data.balance"}  # tests/test_mixture.py
    elsewhere |= {name for name in flatten(base) if name.startswith(("model.expert.", "model.causal"))}
    # tests/test_expert_policy.py and, for fields of sampling, tests/test_action_expert.py
    backends = {"model.attention"}  # computes the same (tests/test_attention.py)
    backends |= {"model.prompt_tokens"}  # up to rounding (tests/test_prompts.py)
    chosen_after = {"selection"}  # which checkpoint counts, not what is trained (tests/test_selection.py)
    measured = {"data.held_out"}  # no training plays it (tests/test_held_out.py)
    assert set(KNOBS) == set(flatten(base)) - elsewhere - backends - chosen_after - measured


def test_label_kinds_give_the_predicted_loss(store, cell_with):
    """With H = 1 a `masked` window's loss is the `executed` one's, less the no-op frames."""
    losses = {}
    for labels in ("executed", "masked"):
        trainer = Trainer(cell_with({"model.chunk": 1, "data.labels": labels}), store)
        window = trainer.stream.window(8)
        losses[labels] = trainer.backward(window), window
    masked, window = losses["masked"]
    trainer = Trainer(cell_with({"model.chunk": 1}), store)
    with torch.no_grad():
        encoded, error = trainer.encode(window), 0.0
        for t in range(8):
            output, _ = trainer.recurrence.tick(
                encoded[4 * t : 4 * t + 4], window.is_first[t], trainer.get_moment(window, t)
            )
            keep = torch.from_numpy(window.phase[t] == 3).float()[:, None, None]
            error += ((output.actions - window.label[t]).abs() * keep).sum().item()
    assert masked == pytest.approx(error / window.label.numel(), rel=1e-4)
    assert 0 < masked < losses["executed"][0]


def test_an_update_is_adamw_on_the_clipped_gradient(store, cell_with):
    """By hand (Loshchilov and Hutter 2019, algorithm 2): lr, betas, weight_decay, clip, warmup and final do what they
    say, update by update."""
    cell = cell_with(
        {
            "optimizer.lr": 1e-2,
            "optimizer.betas": [0.6, 0.8],
            "optimizer.weight_decay": 0.3,
            "optimizer.clip": 0.05,
            "optimizer.warmup": 0.5,
            "optimizer.final": 0.2,
            "budget.updates": 4,
        }
    )
    trainer, twin = Trainer(cell, store), Trainer(cell, store)
    m, v = ([torch.zeros_like(p) for p in twin.parameters] for _ in range(2))
    rates = [1e-2 / 3, 2e-2 / 3, 1e-2, 1e-2 * (0.2 + 0.8 / 2)]  # warm-up to lr, then a cosine towards a fifth of it
    for t, rate in enumerate(rates, start=1):
        twin.backward(twin.stream.window(8))
        gradients = [p.grad for p in twin.parameters]
        norm = torch.sqrt(sum(g.double().square().sum() for g in gradients))
        assert norm > 0.05, "else clipping would not be tested"
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(twin.parameters, gradients, strict=True)):
                g = g * (0.05 / norm).float()
                m[i], v[i] = 0.6 * m[i] + 0.4 * g, 0.8 * v[i] + 0.2 * g * g
                p -= rate * (0.3 * p + m[i] / (1 - 0.6**t) / (torch.sqrt(v[i] / (1 - 0.8**t)) + 1e-8))
                p.grad = None
        _, measured = trainer.step()
        assert measured == pytest.approx(norm.item(), rel=1e-5)
        for name, ours, expected in zip(trainer.names, trainer.parameters, twin.parameters, strict=True):
            torch.testing.assert_close(
                ours, expected, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
            expected.data.copy_(ours)


@pytest.mark.parametrize("fault", ["a write is lost", "the model is called twice"])
def test_model_calls_and_memory_writes_are_held_against_the_ticks(store, base, monkeypatch, fault):
    trainer = Trainer(base, store)
    if fault == "a write is lost":
        monkeypatch.setattr(Recurrence, "_carry", lambda self, state, active: None)
    else:
        step = type(trainer.policy).step
        monkeypatch.setattr(type(trainer.policy), "step", lambda *a, **k: (step(*a, **k), step(*a, **k))[1])
    with pytest.raises(NotAMeasurement) as info:
        trainer.step()
    assert info.value.field == "memory at update 1" and "writes" in info.value.got


@pytest.mark.slow
def test_the_loss_falls(store, cell_with):
    trainer = Trainer(cell_with({"budget.updates": 40, "optimizer.warmup": 0.0}), store)
    losses = [trainer.step()[0] for _ in range(40)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize(
    "change",
    [
        tbptt(2, 4),
        no_memory() | {"data.order": "shuffled"},
        {"intervention": "noise_matched"},
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                tbptt(8, 4),
                tbptt(2, 4) | {"truncation_from": "episode"},
                ema(0.1, 4),
                dummy(4),
                no_memory(),
                {"data.order": "grouped", "data.group": 4},
                {"intervention": "freeze_first"},
            )
        ),
    ],
    ids=["K=2", "shuffled", "noisy", "K=8", "from the episode", "ema", "dummy", "none", "grouped", "frozen"],
)
def test_resume_equals_uninterrupted_bit_for_bit(store, cell_with, tmp_path, change):
    cell = cell_with({**change, "budget.updates": 7})

    def run(folder, **kwargs):
        train_to_the_end(Trainer(cell, store, parse_intervention(cell.intervention)), folder, **kwargs)

    run(tmp_path / "whole")
    seen = []

    def stop_after_three() -> bool:
        seen.append(None)
        return len(seen) == 3

    run(tmp_path / "cut", should_stop=stop_after_three)
    assert ckpt.load(ckpt.latest(tmp_path / "cut" / "checkpoints")).update == 3
    run(tmp_path / "cut")
    whole, cut = (ckpt.load(ckpt.latest(tmp_path / n / "checkpoints")) for n in ("whole", "cut"))
    assert whole.update == cut.update == 7 and whole.cursor == cut.cursor
    for part in ckpt.FILES:
        assert same(whole.tensors[part], cut.tensors[part]), part
    measured = {"frames_per_second": 0, "peak_memory_mb": 0}
    logs = [[{**r, **measured} for r in read_lines(tmp_path / n / "train.jsonl")] for n in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_finished_folder_is_returned_without_training(store, base, tmp_path, monkeypatch):
    train_to_the_end(Trainer(base, store), tmp_path)
    trainer = Trainer(base, store)
    monkeypatch.setattr(trainer, "step", lambda: pytest.fail("trained again"))
    train_to_the_end(trainer, tmp_path)


def test_nan_stops_the_cell_with_a_clear_message(store, base, tmp_path):
    trainer = Trainer(base, store)
    with torch.no_grad():
        trainer.policy.head.fc_out.weight.fill_(float("nan"))
    before = trainer.policy.language.norm.weight.clone()
    with pytest.raises(NotAMeasurement) as info:
        trainer.step()
    assert info.value.field == "training at update 1"
    assert torch.equal(before, trainer.policy.language.norm.weight), "no step was taken"


@pytest.mark.parametrize("kind", ["tokens", "dummy"])
def test_memory_that_does_not_do_what_its_kind_says_stops_training(store, cell_with, kind, monkeypatch):
    trainer = Trainer(cell_with({"memory.kind": kind}), store)
    memory = trainer.policy.memory
    other = (
        (lambda state, taps, *_: memory.init_state(len(taps.memory)))
        if kind == "tokens"
        else (lambda state, taps, *_: {"tokens": taps.memory})
    )
    monkeypatch.setattr(memory, "write", other)
    with pytest.raises(NotAMeasurement) as info:
        trainer.step()
    assert info.value.field.startswith("memory at update") and info.value.got == (
        "frozen" if kind == "tokens" else "moved"
    )


def test_the_leak_test_runs_at_start_up(store, base, tmp_path, monkeypatch):
    from muvla.training import trainer as loop

    called = []
    monkeypatch.setattr(loop, "leak_test", lambda *a: called.append(a) or 0.0)
    train_to_the_end(Trainer(base, store), tmp_path)
    assert len(called) == 1


def test_the_leak_test_leaves_the_stream_where_it_was(store, base):
    trainer = Trainer(base, store)
    before = trainer.stream.state()
    assert trainer.leak_test() == 0.0
    assert trainer.stream.state() == before


# --- checkpoints
# -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(store, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train_to_the_end(Trainer(base, store), folder), folder


def copied(trained, tmp_path):
    import shutil

    return shutil.copytree(trained[0].parent, tmp_path / "checkpoints") / trained[0].name


def test_a_changed_file_is_named(trained, tmp_path):
    path = copied(trained, tmp_path)
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(MuvlaError) as info:
        ckpt.load(path)
    assert info.value.field.endswith("model.safetensors")
    file.write_bytes(bytes(content[:100]))
    with pytest.raises(MuvlaError) as info:
        ckpt.load(path)
    assert info.value.field.endswith("model.safetensors")
    file.unlink()
    with pytest.raises(MuvlaError) as error:
        ckpt.load(path)
    assert error.value.field.endswith("model.safetensors")
    assert "folder" in error.value.remedy


def test_the_remedy_for_a_broken_checkpoint_works(store, base, tmp_path):
    """Removing its folder, as the message says, lets training start again."""
    import shutil

    train_to_the_end(Trainer(base, store), tmp_path)
    shutil.rmtree(next((tmp_path / "checkpoints").glob("update-*")))
    assert ckpt.latest(tmp_path / "checkpoints") is None
    assert train_to_the_end(Trainer(base, store), tmp_path).name == "update-000004"


def test_a_checkpoint_of_another_shape_lists_the_difference(trained, store, cell_with):
    saved = ckpt.load(trained[0])
    with pytest.raises(MuvlaError) as info:
        resume(Trainer(cell_with({"memory.m": 2}), store), saved)
    assert info.value.field == "checkpoint configuration"
    own = lambda cell: dict(Trainer(cell, store).policy.named_parameters())  # noqa: E731
    with pytest.raises(MuvlaError) as info:
        ckpt.load_parameters(own(cell_with({"memory.m": 2})), saved.tensors["model"])
    assert info.value.field == "checkpoint"
    with pytest.raises(MuvlaError) as info:
        ckpt.load_parameters(own(cell_with(no_memory())), saved.tensors["model"])
    assert info.value.field == "checkpoint"
    with pytest.raises(MuvlaError) as info:
        tensors = {k: v for k, v in saved.tensors["model"].items() if k != "head.fc_in.bias"}
        ckpt.load_parameters(own(saved.cell), tensors)
    assert info.value.field == "checkpoint"


def test_other_data_or_statistics_are_refused(trained, store, base, tmp_path):
    from muvla.data.collect import collect

    saved = ckpt.load(trained[0])
    other = collect(replace(base.data.dataset, {"seed": 500}), tmp_path)
    with pytest.raises(MuvlaError) as info:
        resume(Trainer(base, other), saved)
    assert info.value.field == "checkpoint statistics"


def test_a_crash_while_saving_leaves_the_older_checkpoint_whole(trained, tmp_path, monkeypatch):
    path = copied(trained, tmp_path)
    saved = ckpt.load(path)
    real, calls = files.os.fsync, []

    def dies(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", dies)
    newer = dataclasses.replace(saved, update=99)
    with pytest.raises(MuvlaError) as info:
        ckpt.save(path.parent, newer)
    assert info.value.field.endswith("optimizer.safetensors")
    assert ckpt.latest(path.parent) == path
    assert ckpt.load(path).update == saved.update


def test_checkpoint_metadata_is_plain_json(trained):
    meta = json.loads((trained[0] / "checkpoint.json").read_text())
    assert meta["update"] == 4 and set(meta["sha256"]) == set(ckpt.FILES)
    assert math.isfinite(meta["statistics"]["action_low"][0])
    assert sorted(p.name for p in trained[0].parent.iterdir()) == ["latest", "update-000004"], "older ones are removed"
