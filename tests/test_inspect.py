"""Spoilt checkpoint directories are refused by name, and `muvla inspect` says what is inside."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from helpers import released
from helpers.errors import refused, refused_at
from helpers.release_size import SIZE
from muvla.checkpoints.release import load_release, write_release
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import main
from muvla.config.sizes import OPENVLA_7B, SIZES
from muvla.errors import DiskError, MuvlaError
from muvla.models.prompts import built_in_prompts
from muvla.runs.run import Run
from muvla.runs.train import train_cell


@pytest.fixture(scope="module")
def muvla(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("released") / "muvla")


def edit_config(**changes):
    def edit(path):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changes))

    return edit


def truncate(path):
    shard = next(path.glob("model-00001*"))
    shard.write_bytes(shard.read_bytes()[:-100])


def drop_from_index(path):
    index = json.loads((path / "model.safetensors.index.json").read_text())
    del index["weight_map"]["projector.fc2.bias"]
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def wrong_shard(path):
    index = json.loads((path / "model.safetensors.index.json").read_text())
    there = index["weight_map"]["projector.fc2.bias"]
    index["weight_map"]["projector.fc2.bias"] = next(f for f in index["weight_map"].values() if f != there)
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def code_in_pickle(path):
    torch.save({"module.x": Path("x")}, path / "action_head--150000_checkpoint.pt")


def remove(pattern):
    return lambda path: [file.unlink() for file in path.glob(pattern)]


def second_step(path):
    (path / "action_head--5_checkpoint.pt").write_bytes(b"")


def another_step(path):
    file = path / "memory_module--150000_checkpoint.pt"
    file.rename(path / "memory_module--5_checkpoint.pt")


def action_queries(path):
    torch.save({}, path / "action_queries--150000_checkpoint.pt")


def numbers_in_pickle(path):
    torch.save({"initial_memory": torch.zeros(5, 24), "step": 3}, path / "memory_module--150000_checkpoint.pt")


def other_names_in_pickle(path):
    torch.save({"memory": torch.zeros(5, 24)}, path / "memory_module--150000_checkpoint.pt")


@pytest.mark.parametrize(
    ("spoil", "field", "got"),
    [
        (edit_config(model_type="llava"), "config.json: model_type", "llava"),
        (edit_config(use_fused_vision_backbone=False), "config.json: model_type", "openvla"),
        (truncate, "model-00001-of-00002.safetensors", ""),
        (wrong_shard, "model-00001-of-00002.safetensors", "projector.fc2.bias"),
        (remove("model-00002*"), "model-00002-of-00002.safetensors", ""),
        (remove("dataset_statistics.json"), "x", "dataset_statistics.json"),
        (remove("proprio_projector*"), "x", "proprio_projector--"),
        (remove("memory_meta.json"), "memory_meta.json", ""),
        (code_in_pickle, "action_head--150000_checkpoint.pt", ""),
        (second_step, "x", "action_head--5_checkpoint.pt"),
        (remove("memory_module*"), "x", "memory_module--"),
        (another_step, "x", "150000, 5"),
        (action_queries, "x", "action_queries--150000_checkpoint.pt"),
        (numbers_in_pickle, "memory_module--150000_checkpoint.pt", "step: int"),
        (other_names_in_pickle, "x", "memory_module with memory"),
    ],
)
def test_a_spoilt_directory_is_refused_by_name(tmp_path, spoil, field, got):
    path = released.write(tmp_path / "x")
    spoil(path)
    with refused_at(f"/{field}", got):
        ReleasedCheckpoint(path, SIZE)


def test_an_anatomy_that_is_not_built_is_refused(tmp_path):
    path = released.write(tmp_path / "x")
    edit_config(vision_backbone_id="siglip-vit-so400m")(path)
    with pytest.raises(MuvlaError) as info:
        ReleasedCheckpoint(path)
    assert info.value.field.endswith("vision_backbone_id")


@pytest.mark.parametrize(
    ("field", "got"),
    [("num_mem_tokens", 64), ("memory_update", "gru"), ("attention_mask_mode", "causal"), ("tbptt_length", None)],
)
def test_a_memory_meta_that_contradicts_is_refused(tmp_path, field, got):
    path = released.write(tmp_path / "x", **{field: got})
    with refused(f"{path / 'memory_meta.json'}: {field}") as info:
        ReleasedCheckpoint(path, SIZE)
    assert info.value.got == got


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    path = released.write(tmp_path / "x")
    drop_from_index(path)
    torch.save(
        {"module.fc1.weight": torch.zeros(24, 7), "module.extra": torch.zeros(1)},
        path / "proprio_projector--150000_checkpoint.pt",
    )
    directory = ReleasedCheckpoint(path, SIZE)
    assert directory.differences() == [
        "weights: missing projector.fc2.bias",
        "proprio: missing fc1.bias",
        "proprio: missing fc2.bias",
        "proprio: missing fc2.weight",
        "proprio: unexpected extra",
    ]
    with refused(str(path)):
        directory.load_policy()


def test_a_tokenizer_that_splits_the_prompt_differently_is_refused(tmp_path):
    path = released.write(tmp_path / "x")
    built_in_prompts().tokenizer.save(str(path / "tokenizer.json"))
    with pytest.raises(MuvlaError) as info:
        ReleasedCheckpoint(path, SIZE).load_policy()
    assert info.value.field == str(path) and "tokenizer: " in info.value.got
    remove("tokenizer.json")(path)
    with pytest.raises(MuvlaError) as info:
        ReleasedCheckpoint(path, SIZE).load_policy()
    assert info.value.field == str(path)


def test_a_released_directory_of_another_size_lists_the_shapes(muvla):
    wrong = ReleasedCheckpoint(muvla, OPENVLA_7B).differences()
    assert "weights: projector.fc3.weight is (24, 24) instead of (4096, 4096)" in wrong


def test_statistics_of_another_robot_and_a_missing_tokenizer_would_not_load(tmp_path):
    """`muvla inspect` and loading give one answer."""
    path = released.write(tmp_path / "x")
    statistics = json.loads((path / "dataset_statistics.json").read_text())
    statistics["mikasa_combined"]["action"]["q01"] = [0.0] * 3
    statistics["mikasa_combined"]["action"]["mask"] = [True] * 6
    statistics["mikasa_combined"]["action"]["q99"][0] = math.nan
    statistics["mikasa_combined"]["proprio"]["mask"] = [False] * 7
    (path / "dataset_statistics.json").write_text(json.dumps(statistics))
    remove("tokenizer.json")(path)
    directory = ReleasedCheckpoint(path, SIZE)
    first, second, third, fourth, last = directory.differences()
    assert "action, q01: 3" in first and "action, q99: 6" in second
    assert "action, mask" in third and "proprio, mask" in fourth
    assert last.startswith("tokenizer: ") and "tokenizer.json" in last
    with refused(str(path)) as info:
        directory.load_policy()
    assert first in info.value.got


def test_the_prefix_of_ddp_may_be_there_or_not(tmp_path):
    path = released.write(tmp_path / "x")
    file = path / "memory_module--150000_checkpoint.pt"
    torch.save({f"module.{n}": t for n, t in torch.load(file).items()}, file)
    assert ReleasedCheckpoint(path, SIZE).differences() == []


def test_a_full_disk_is_one_clear_error(muvla, small_disk):
    release = load_release(ReleasedCheckpoint(muvla, SIZE))
    room = 1024 * 1024
    for filler in (room - 20_000, room - 120_000, room - 170_000):  # full in one file or another
        (small_disk / "filler").write_bytes(bytes(filler))
        with pytest.raises(DiskError):
            write_release(release, small_disk / "out")
        shutil.rmtree(small_disk / "out")


def test_nothing_is_written_over(muvla):
    release = load_release(ReleasedCheckpoint(muvla, SIZE))
    with pytest.raises(MuvlaError) as info:
        write_release(release, muvla)
    assert info.value.field == str(muvla)


def test_inspect_tells_what_is_inside(muvla, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "fixture", SIZE)
    assert main(["inspect", str(muvla), "--size", "fixture"]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "μVLA",
        "step 150000",
        "memory: m = 5, update tbptt, K = 2, guard context",
        "statistics: mikasa_combined, 7 of 7",
        "would not load: nothing",
        "memory_module--150000_checkpoint.pt",
    ):
        assert expected in printed
    drop_from_index(released.write(tmp_path / "x"))
    assert main(["inspect", str(tmp_path / "x"), "--size", "fixture"]) == 2
    assert "would not load:\n  weights: missing projector.fc2.bias" in capsys.readouterr().out


def test_inspect_reads_a_run_folder(base, store, tmp_path, capsys):
    run = Run(tmp_path, store.path.parent, "abc")
    train_cell(run, base, store, "cpu")
    assert main(["inspect", str(run.folder)]) == 0
    printed = capsys.readouterr().out
    assert "update 4 of 4" in printed and "memory: tokens, m = 4, " in printed and "K = 8" in printed
    shard = next(run.folder.glob("checkpoints/*/model.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["inspect", str(run.folder)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_inspect_of_another_folder_says_what_it_looks_for(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "config.json (a release) or checkpoint.json (a run)" in capsys.readouterr().err
