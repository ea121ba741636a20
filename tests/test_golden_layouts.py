"""Every name and shape of the full-size training files of MemoryVLA, CogACT and CronusVLA, on the meta device."""

import csv
import functools
import json
import os
from pathlib import Path

import pytest
import torch

from muvla.checkpoints.expert_names import expected_shapes, expert_rules, unread_expert
from muvla.config import MemoryConfig, ModelConfig
from muvla.config.expert import get_expert
from muvla.config.sizes import get_size
from muvla.memory.contract import Conditions
from muvla.memory.registry import build_memory
from muvla.models.action_expert import ActionExpert
from muvla.models.policy import Interface, Policy, dimensions_of


def golden_path(name):
    if "MUVLA_TEST_DATA" not in os.environ:
        pytest.skip("MUVLA_TEST_DATA is not set")
    return Path(os.environ["MUVLA_TEST_DATA"]) / "golden" / name


@functools.cache
def meta_policy(memory, expert, chunk, cameras=1):
    model = ModelConfig(
        get_size("memoryvla-7b"), chunk=chunk, head="expert", causal=True, proprio=False, expert=get_expert(expert)
    )
    interface = Interface(cameras, proprio_dim=1, action_dim=7, text=32, text_padded=True)
    with torch.device("meta"):
        return Policy(model, build_memory(memory, dimensions_of(model, interface)), interface)


@pytest.mark.parametrize(
    ("name", "memory", "expert", "chunk"),
    [
        ("memoryvla/g_checkpoint_libero", MemoryConfig("bank", place="condition"), "DiT-L", 16),
        ("memoryvla/g_checkpoint_bridge", MemoryConfig("bank", place="condition"), "DiT-L", 16),
        ("memoryvla/g_checkpoint_mikasa_chunk4", MemoryConfig("bank", place="condition"), "DiT-L", 4),
        (
            "cronusvla/g_checkpoint_7b_bridge_rt1",
            MemoryConfig("feature_fifo", place="condition", capacity=6),
            "DiT-B",
            16,
        ),
        ("cronusvla/g_checkpoint_7b_libero", MemoryConfig("feature_fifo", place="condition", capacity=3), "DiT-B", 8),
    ],
)
def test_every_tensor_of_a_release_has_its_place(name, memory, expert, chunk):
    with golden_path(f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    module, tensor, shape = list(rows[0])[:3]
    published = {f"{row[module]}.{row[tensor]}": tuple(map(int, row[shape].split("x"))) for row in rows}
    assert expected_shapes(meta_policy(memory, expert, chunk)) == published


def test_a_wrist_camera_adds_no_tensor():
    memory = MemoryConfig("bank", place="condition")
    first, second = (expected_shapes(meta_policy(memory, "DiT-L", 16, cameras)) for cameras in (1, 2))
    assert first == second


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_expert_of_cogact_has_the_published_names(size):
    data = json.loads(golden_path(f"cogact/g_action_model_{size}.json").read_text())
    rows = data.get("rows") or data["tensors"]
    published = {row[-3] if len(row) == 4 else row[0]: tuple(row[-2]) for row in rows}
    config = get_expert({"base": "DiT-B", "large": "DiT-L"}[size])
    with torch.device("meta"):
        expert = ActionExpert(config, Conditions(), 16, 7, 4096)
    ours = {f"head.{name}": p for name, p in expert.named_parameters()}
    shapes = {n: s for rule in expert_rules(expert) for n, s in rule.published_shapes(ours).items()}
    shapes |= unread_expert(config.width, 7)
    assert {name.removeprefix("action_model."): shape for name, shape in shapes.items()} == published


def test_the_experts_have_the_published_numbers_of_parameters():
    counts = []
    for memory, expert, chunk in (
        (MemoryConfig("bank", place="condition"), "DiT-L", 16),
        (MemoryConfig("feature_fifo", place="condition", capacity=6), "DiT-B", 16),
    ):
        counts.append(sum(p.numel() for p in meta_policy(memory, expert, chunk).head.parameters()))
    assert counts == [408_829_959, 134_652_419]
