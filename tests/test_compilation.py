"""A compiled step: the same numbers up to rounding, the same guard, one compilation per batch shape."""

import os
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.errors import printed_field
from helpers.policies import PADDED_INTERFACE, PLAIN_INTERFACE, random_frames
from helpers.studies import STUDY, at
from muvla.checkpoints.build import build_policy
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import LoraConfig
from muvla.config.serialization import replace
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.models import compilation as compiling
from muvla.models.compilation import READ_OFF_THE_PLAN, compile_step, is_compiled
from muvla.models.guard import BARRED_ROWS
from muvla.models.leak_test import leak_test
from muvla.models.lora import add_adapters
from muvla.training.run import make_diagnosis
from muvla.training.trainer import Trainer
from muvla.utils.io import read_json
from muvla.utils.provenance import provenance, provenance_id

pytestmark = pytest.mark.slow

THREE_LAYERS = {"model.size.layers": 3}
needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")


@pytest.mark.parametrize(
    "interface",
    [
        pytest.param(PADDED_INTERFACE, id="mixed prompts"),
        pytest.param(PLAIN_INTERFACE, id="one length", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("attention", sorted(READ_OFF_THE_PLAN))
def test_one_compilation_per_batch_shape(cell_with, attention, interface):
    """For all layers, ticks and prompts; one more each with gradient and for another number of slots."""
    policy = build_policy(cell_with(THREE_LAYERS | {"model.attention": attention}), interface)
    expected = policy.step(random_frames(policy, 4), torch.zeros(4, 4, 96))
    counter = CompileCounterWithBackend("eager")
    compile_step(policy, counter)
    for slots, compilations in ((4, 2), (2, 4), (4, 4)):
        memory = torch.zeros(slots, 4, 96)
        for tick in range(3):
            memory = policy.step(random_frames(policy, slots, seed=tick), memory).memory
        memory.sum().backward()
        with torch.no_grad():
            for tick in range(3):
                memory = policy.step(random_frames(policy, slots, seed=tick), memory).memory
        assert counter.frame_count == compilations
    got = policy.step(random_frames(policy, 4), torch.zeros(4, 4, 96))
    assert torch.equal(got.actions, expected.actions) and torch.equal(got.memory, expected.memory)


def backward(cell, store, backend=None, recompute=False, device="cpu"):
    """Gradients of a window with K graphs alive, after an update by another one; trainer and bytes kept by a step."""
    trainer = Trainer(cell, store, device=device, checkpoint_gradients=recompute)
    if backend:
        compile_step(trainer.policy, backend)
    trainer.step()
    kept, own = 0, {p.data_ptr() for p in trainer.parameters}

    def keep(tensor):
        nonlocal kept
        kept += tensor.nbytes * (tensor.data_ptr() not in own)
        return tensor

    frames = trainer.encode(trainer.stream.window(1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.policy.step(frames, torch.zeros(4, 4, 96, device=device))
    loss = trainer.backward(trainer.stream.window(8))
    return loss, {n: p.grad for n, p in zip(trainer.names, trainer.parameters, strict=True)}, trainer, kept


def assert_same(one, other, tolerance):
    assert one[0] == pytest.approx(other[0], rel=tolerance)
    for name, gradient in one[1].items():
        if gradient is not None:
            # Relative to the parameter's own gradient; that of a key bias is zero in theory, so it needs a floor.
            scale = max(gradient.abs().max().item(), 1e-3)
            torch.testing.assert_close(other[1][name], gradient, rtol=0, atol=tolerance * scale, msg=name)


def test_two_windows_of_eight_ticks_are_compiled_once(store, base):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = backward(base, store, counter)
    assert counter.frame_count == 1
    assert_same(backward(base, store), compiled, 1e-6)
    assert compiled[2].leak_test() == 0.0 and counter.frame_count == 2, "the leak test has no gradient"


def test_together_with_gradient_checkpointing(store, base):
    """What is kept is what checkpointing keeps without compilation: the layers' inputs."""
    plain = backward(base, store)
    kept = {(None, False): plain[3]}
    for compiled, recompute in ((None, True), ("aot_eager", False), ("aot_eager", True)):
        result = backward(base, store, compiled, recompute)
        kept[compiled, recompute] = result[3]
        assert_same(plain, result, 1e-6)
    assert kept["aot_eager", True] < 0.25 * kept["aot_eager", False]
    assert kept["aot_eager", True] == pytest.approx(kept[None, True], rel=0.2)


@pytest.mark.parametrize(
    ("backend", "recompute"),
    [("aot_eager", False), ("aot_eager", True), pytest.param("inductor", False, marks=needs_compiler)],
)
def test_together_with_diagnostics(store, base, backend, recompute):
    """The same update, bit for bit: nothing goes back twice through what was compiled, so there is no credit."""
    trained = []
    for diagnosed in (False, True):
        trainer = Trainer(base, store, checkpoint_gradients=recompute)
        compile_step(trainer.policy, backend)
        diagnosis = make_diagnosis(trainer) if diagnosed else None
        trained.append((trainer.step(diagnosis), [p.detach().clone() for p in trainer.parameters]))
    assert "gradient_read" not in diagnosis.row and diagnosis.row["write_ratio"] > 0
    assert trained[0][0] == trained[1][0]
    assert all(torch.equal(a, b) for a, b in zip(trained[0][1], trained[1][1], strict=True))


def test_with_adapters_in_half_precision(store, base):
    """As released policies are fine-tuned."""
    results, counter = [], CompileCounterWithBackend("aot_eager")
    for compiled in (False, True):
        policy = build_policy(replace(base, {"model.precision": "bfloat16"}), PADDED_INTERFACE)
        add_adapters(policy, base.model.size, LoraConfig(rank=4), seed=0)
        if compiled:
            compile_step(policy, counter)
        memory = policy.memory.read(policy.memory.init_state(4)).tokens
        for tick in range(3):
            memory = policy.step(random_frames(policy, 4, seed=tick), memory).memory
        memory.sum().backward()
        results.append((memory.sum().item(), {n: p.grad for n, p in policy.named_parameters()}))
    assert counter.frame_count == 1
    assert_same(*results, 1e-4)


@pytest.mark.parametrize("attention", sorted(READ_OFF_THE_PLAN))
def test_a_leak_is_seen_in_a_compiled_step_too(cell_with, attention, monkeypatch):
    policy = build_policy(cell_with({"model.attention": attention}), PADDED_INTERFACE)
    compile_step(policy, "eager")
    memory = torch.randn(4, 4, 96)
    assert leak_test(policy, random_frames(policy, 4), {"tokens": memory}) == 0.0
    monkeypatch.setitem(BARRED_ROWS, "context", ())
    monkeypatch.setattr(
        "muvla.models.attention_plan._groups", lambda layout, guard: (((slice(0, layout.length),), layout.length),)
    )
    with pytest.raises(NotAMeasurement) as info:
        leak_test(policy, random_frames(policy, 4), {"tokens": memory})
    assert info.value.field == "model.guard"


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=needs_compiler), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_compiled_for_real(store, base, device):
    plain, compiled = (backward(base, store, backend, device=device) for backend in (None, "inductor"))
    assert_same(plain, compiled, 1e-4)
    assert compiled[2].leak_test() == 0.0
    with torch.no_grad():
        window = compiled[2].stream.window(1)
        memory = torch.zeros(4, 4, 96, device=device)
        actions = [t[2].policy.step(t[2].encode(window), memory).actions for t in (plain, compiled)]
    torch.testing.assert_close(*actions, rtol=1e-4, atol=1e-4)
    assert not torch.equal(*actions), "it is the compiled code that ran"


def test_what_cannot_be_compiled_is_one_error(cell_with, monkeypatch):
    policy = build_policy(cell_with(), PADDED_INTERFACE)
    monkeypatch.delitem(compiling.READ_OFF_THE_PLAN, "split")
    with pytest.raises(MuvlaError) as info:
        compile_step(policy)
    assert info.value.field == "--compile"
    assert not is_compiled(policy)


def test_a_missing_compiler_is_found_before_any_cell_is_marked(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    assert main(["sweep", str(tmp_path), *at(tmp_path), "--device", "cpu", "--compile"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--compile" and not (tmp_path / "runs").exists()


def test_provenance_says_so_and_else_nothing():
    """Records of before keep their ids."""
    plain, compiled = provenance("cpu"), provenance("cpu", compiled=True)
    assert "compiled" not in plain and compiled == plain | {"compiled": True}
    assert provenance_id(plain) != provenance_id(compiled)


@needs_compiler
def test_from_the_command_line_to_the_report(tmp_path, capsys):
    """Trained and evaluated compiled, in a process of its own and in this one; no table mixes it with what was not."""
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    study = [str(tmp_path), *at(tmp_path)]
    assert main(["sweep", *study, "--variant", "K=8", "--no-tracking", "--compile"]) == 0
    (folder,) = {file.parent for file in (tmp_path / "runs").glob("*/run.json")}  # beside the baselines
    more = ["evaluate", folder.name, *at(tmp_path), "--protocol", "recall-position5-rh@1"]
    assert main([*more, "--compile"]) == 0
    records = [read_json(file) for file in (folder / "provenance").iterdir()]
    assert records and all(record["compiled"] for record in records)
    assert main(["train", *study, "--variant", "none"]) == 0
    assert main(["sweep", *study, "--no-tracking"]) == 0
    capsys.readouterr()
    assert main(["report", *study]) == EXIT_BAD_INPUT
    assert "--compile (False, True)" in capsys.readouterr().err
    assert main(["report", *study, "--mix-provenance"]) == 0
    assert "thread(s) per cell, compiled" in (tmp_path / "runs" / "report" / "tiny_study" / "report.md").read_text()
