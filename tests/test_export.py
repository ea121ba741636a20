"""`muvla export`: a training as a released directory, merged, with its adapters beside."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers import released
from helpers.release_size import ANATOMY, SIZE
from helpers.runs import one_step, trained
from helpers.studies import DATASET
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import BudgetConfig, Cell, DataConfig, MemoryConfig, ModelConfig, ema, no_memory
from muvla.config.serialization import replace
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.runs.export import export
from muvla.runs.run import NOT_A_MEASUREMENT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("base") / "muvla", action=2, proprio=2, own=ANATOMY)


@pytest.fixture
def cell():
    return Cell(
        model=ModelConfig(size=SIZE, chunk=8, memory_positions="shift", images="resized"),
        data=DataConfig(DATASET),
        memory=MemoryConfig("tokens", 5),
        truncation=2,
        budget=BudgetConfig(slots=4, window=4, updates=3),
    )


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"start.checkpoint": "BASE", "lora.rank": 4, "optimizer.lr": 1e-2}, "muvla"),
        ({"start.checkpoint": "BASE", "lora.rank": 4, **no_memory(), "model.guard": "full"}, "oft"),
        ({}, "muvla"),
        (ema(0.1, 5), "muvla"),
        ({"data.cameras": 1, "model.proprio": False}, "muvla"),
        ({"data.cameras": 1, "data.first_image": True}, "muvla"),
    ],
    ids=["adapters", "no memory", "drawn", "ema", "one camera, no proprio", "first image"],
)
def test_it_computes_the_same_from_the_published_files(base, cell, store, tmp_path, changes, kind):
    """Within the rounding to the published bfloat16."""
    changes = {k: str(base) if v == "BASE" else v for k, v in changes.items()}
    run = trained(replace(cell, changes), store, tmp_path)
    export(run, tmp_path / "out", "recall")
    directory = ReleasedCheckpoint(tmp_path / "out")
    assert directory.family == kind and directory.step == "3" and directory.differences() == []
    ours, theirs = run.load_policy("cpu"), directory.load_policy()
    from muvla.data.stream import SlotStream

    assert (ours.interface.cameras, ours.interface.first_image) == (
        theirs.interface.cameras,
        theirs.interface.first_image,
    )
    stream = lambda: SlotStream(  # noqa: E731
        store, replace(cell, changes).data, Statistics.from_store(store), ours.encode_text, slots=4, chunk=8, seed=0
    )
    one, two = one_step(ours, stream()), one_step(theirs, stream())
    torch.testing.assert_close(one.actions, two.actions, rtol=0.05, atol=0.03)
    torch.testing.assert_close(one.memory, two.memory, rtol=0.05, atol=0.05)
    assert one.actions.std() > 0.05, "or the tolerance would prove nothing"
    bounds = Statistics.from_release(directory.statistics["recall"])
    assert bounds.action_low == Statistics.from_store(store).action_low
    told = directory.statistics["recall"]
    for column, source in (("action", "executed_action"), ("proprio", "proprio")):
        values = np.asarray(store[source], dtype=np.float64)
        assert np.allclose(told[column]["mean"], values.mean(axis=0))
        assert np.allclose(told[column]["std"], values.std(axis=0))
    if kind == "muvla":
        alpha = changes.get("memory.alpha", 1.0)
        expected = {
            "num_mem_tokens": 5,
            "memory_update": "ema" if alpha < 1 else "tbptt",
            "ema_alpha": alpha,
            "tbptt_length": 1 if alpha < 1 else 2,
            "attention_mask_mode": "custom",
        }
        assert json.loads((tmp_path / "out" / "memory_meta.json").read_text()) == expected


def test_the_adapters_beside_the_weights_are_what_was_merged_into_them(base, cell, store, tmp_path):
    """Base + (alpha/r)·B·A in the published names, query, key and value of a tower in one matrix; as peft reads it."""
    adapted = replace(cell, {"start.checkpoint": str(base), "lora.rank": 4, "optimizer.lr": 1e-2})
    export(trained(adapted, store, tmp_path), tmp_path / "out", "recall")
    folder = tmp_path / "out" / "lora_adapter"
    config, tensors = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
    before, after = ReleasedCheckpoint(base).parts["weights"], ReleasedCheckpoint(tmp_path / "out").parts["weights"]
    qkv = "vision_backbone.featurizer.blocks.0.attn.qkv"
    assert qkv in config["target_modules"] and "language_model.model.layers.1.mlp.up_proj" in config["target_modules"]
    assert config["rank_pattern"][qkv] == 12 and len(tensors) == 2 * len(config["target_modules"])
    moved = 0
    for module in config["target_modules"]:
        rank, alpha = config["rank_pattern"].get(module, 4), config["alpha_pattern"].get(module, 16.0)
        down, up = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        assert len(down) == rank
        expected = before[f"{module}.weight"].float() + alpha / rank * up @ down
        torch.testing.assert_close(after[f"{module}.weight"], expected.bfloat16(), rtol=0.01, atol=1e-3)
        moved += not torch.equal(after[f"{module}.weight"], before[f"{module}.weight"])
    assert moved == len(config["target_modules"])
    unchanged = "language_model.model.embed_tokens.weight"
    assert torch.equal(after[unchanged], before[unchanged])


@pytest.mark.parametrize(
    ("changes", "field", "got"),
    [
        ({"model.guard": "memory_only"}, "model.guard", "memory_only"),
        ({"memory.kind": "dummy"}, "memory.kind", "dummy"),
        ({"memory.kind": "gru", "memory.place": "fuse"}, "memory.kind", "gru"),
        ({"memory.gate": "learned"}, "memory.gate", "learned"),
        ({"model.chunk": 4}, "model.chunk", 4),
        ({"model.memory_positions": "reserved", "model.reserve": 8}, "model.reserve", 8),
        ({**no_memory()}, "model.guard", "context"),
    ],
)
def test_what_the_published_code_cannot_run_is_refused(cell, store, tmp_path, changes, field, got):
    run = trained(replace(cell, {**changes, "budget.updates": 1}), store, tmp_path)
    with pytest.raises(MuvlaError) as info:
        export(run, tmp_path / "out", "recall")
    assert info.value.field.endswith(field) and info.value.got == got
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(cell, store, tmp_path, capsys):
    run = trained(replace(cell, {"budget.updates": 1}), store, tmp_path)
    command = [
        "export",
        run.train[:8],
        str(tmp_path / "out"),
        "--statistics",
        "recall",
        "--runs",
        str(run.root),
        "--data",
        str(run.data),
    ]
    assert main(command) == 0
    assert main(["inspect", str(tmp_path / "out")]) == 0
    assert "statistics: recall" in capsys.readouterr().out
    assert main(command) == EXIT_BAD_INPUT, "a folder with files is not written over"
    (tmp_path / "file").touch()
    assert main([*command[:2], str(tmp_path / "file"), *command[3:]]) == EXIT_BAD_INPUT
    assert "a file" in capsys.readouterr().err
    run.fail(NOT_A_MEASUREMENT, "a leak")
    assert main([*command[:2], str(tmp_path / "other"), *command[3:]]) == EXIT_BAD_INPUT
    assert run.train in capsys.readouterr().err
