"""A release whose language model is held in four bits: what is quantised, what is not, and what that costs."""

import json
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from helpers import released
from helpers.release_size import SIZE
from helpers.released_runs import run
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import EXIT_BAD_INPUT
from muvla.errors import MuvlaError
from muvla.models.compilation import compile_step
from muvla.models.leak_test import leak_test

pytestmark = pytest.mark.usefixtures("small_release")
MATRICES = {f"self_attn.{p}_proj" for p in "qkvo"} | {f"mlp.{p}_proj" for p in ("gate", "up", "down")}


def quantised(policy):
    """Name below the language model → layer."""
    bnb = pytest.importorskip("bitsandbytes")
    found = {name: m for name, m in policy.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    return {name.removeprefix("language."): m for name, m in found.items()}


def tick(policy):
    """One step on the same frames for every policy: its output, and what it was given."""
    frames = torch.randint(0, 256, (2, 2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    observed = (frames, torch.zeros(2, 7), *policy.encode_text(["Touch the cube."] * 2))
    with torch.no_grad():
        encoded = policy.encode(*(t.to(policy.memory.initial.device) for t in observed))
        given = encoded, policy.memory.read(policy.memory.init_state(2)).tokens
        return policy.eval().step(*given), given


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def half_and_four(tmp_path, request):
    pytest.importorskip("bitsandbytes")
    directory = ReleasedCheckpoint(released.write(tmp_path / "x"), SIZE)
    return [directory.load_policy(precision, request.param) for precision in ("bfloat16", "nf4")]


def test_the_matrices_of_the_layers_and_nothing_else(half_and_four):
    half, four = half_and_four
    layers = quantised(four)
    assert layers.keys() == {f"layers.{i}.{name}" for i in range(SIZE.layers) for name in MATRICES}
    assert len(layers) == 7 * SIZE.layers
    for layer in layers.values():
        state = layer.weight.quant_state
        assert (state.quant_type, state.blocksize, state.nested, state.dtype) == ("nf4", 64, False, torch.bfloat16)
        assert layer.weight.nbytes == layer.in_features * layer.out_features // 2
    others = dict(half.named_parameters())
    for name, parameter in four.named_parameters():
        if name.removeprefix("language.").removesuffix(".weight") not in layers:
            assert parameter.dtype == others[name].dtype and torch.equal(parameter, others[name]), name


def test_actions_are_near_those_of_half_precision(half_and_four):
    (half, _), (four, given) = map(tick, half_and_four)
    torch.testing.assert_close(four.actions, half.actions, rtol=0, atol=0.25 * half.actions.abs().max().item())
    assert not torch.equal(four.actions, half.actions) and four.actions.dtype == torch.float32
    assert leak_test(half_and_four[1], *given) == 0.0


def test_it_is_half_precision_on_the_rounded_matrices(half_and_four):
    """Dtypes between the layers included: rounding the matrices is all that four bits change."""
    from bitsandbytes.functional import dequantize_4bit

    half, four = half_and_four
    for name, layer in quantised(four).items():
        rounded = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        half.language.get_submodule(name).weight.data = rounded
    (one, _), (other, _) = tick(half), tick(four)
    torch.testing.assert_close(one.actions, other.actions, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(one.memory, other.memory, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_together_with_compilation(half_and_four):
    four, counter = half_and_four[1], CompileCounterWithBackend("eager")
    before, given = tick(four)
    compile_step(four, counter)
    assert torch.equal(tick(four)[0].actions, before.actions) and torch.equal(tick(four)[0].memory, before.memory)
    assert leak_test(four, *given) == 0.0 and counter.frame_count == 1


@pytest.mark.slow
def test_from_the_command_line_it_is_a_run_of_its_own(tmp_path):
    pytest.importorskip("bitsandbytes")
    path = released.write(tmp_path / "x")
    for precision in ("bfloat16", "nf4"):
        assert run(tmp_path, "evaluate", path, "--precision", precision) == 0
    assert run(tmp_path, "intervene", path, "noise_unit", "--precision", "nf4") == 0
    told = [json.loads((folder / "release.json").read_text()) for folder in (tmp_path / "runs").iterdir()]
    assert {one["precision"] for one in told} == {"bfloat16", "nf4"} and len({one["train"] for one in told}) == 2


def test_without_the_package_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # which is how Python hides one that is installed
    path = released.write(tmp_path / "x")
    assert run(tmp_path, "evaluate", path, "--precision", "nf4") == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert "--precision: got nf4 without bitsandbytes" in error and error.count("\n") == 1
    assert "pip install -e '.[four-bit]'" in error
    with pytest.raises(MuvlaError) as info:
        ReleasedCheckpoint(path, SIZE).load_policy("nf4")
    assert info.value.field == "--precision"
