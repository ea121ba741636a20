"""Released directories with FiLM: the vision backbone's own file, in and out (spec 1.10)."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers import released
from helpers.errors import refused
from helpers.release_size import ANATOMY, SIZE
from helpers.released_forward import everything_in
from helpers.runs import one_step, trained
from helpers.studies import DATASET
from muvla.checkpoints.build import build_policy, get_prompts
from muvla.checkpoints.film_weights import VisionFile
from muvla.checkpoints.layout import expected_shapes
from muvla.checkpoints.release import load_release, write_release
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import main
from muvla.config import BudgetConfig, Cell, DataConfig, MemoryConfig, ModelConfig, no_memory
from muvla.config.serialization import replace
from muvla.config.sizes import OPENVLA_7B, SIZES
from muvla.data.normalization import Statistics
from muvla.data.stream import SlotStream
from muvla.errors import MuvlaError
from muvla.memory.contract import Dimensions
from muvla.memory.registry import build_memory
from muvla.models.policy import Interface, Policy
from muvla.runs.export import export
from muvla.training.interface import get_interface
from muvla.training.trainer import Trainer

pytestmark = pytest.mark.slow

FILE = "vision_backbone--150000_checkpoint.pt"
ROBOT = {"action": 2, "proprio": 2, "own": ANATOMY}


@pytest.fixture(scope="module")
def oft(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("released") / "oft", "oft", film=True, **ROBOT)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("released") / "oft", "oft", **ROBOT)


@pytest.fixture
def cell(oft):
    cell = Cell(
        model=ModelConfig(size=SIZE, chunk=8, memory_positions="shift", images="resized", guard="full", film=True),
        data=DataConfig(DATASET),
        budget=BudgetConfig(slots=4, window=4, updates=3),
    )
    return replace(cell, {**no_memory(), "truncation": 1, "start.checkpoint": str(oft)})


def test_openvla_7b_has_the_published_layers():
    """456 M parameters of FiLM (spec 1.10), of which those of the last blocks are never read."""
    with torch.device("meta"):
        policy = Policy(
            ModelConfig(OPENVLA_7B, film=True),
            build_memory(MemoryConfig(), Dimensions(4096)),
            Interface(2, 7, 7, 1, True),
        )
    shapes = expected_shapes(policy, film=True)["vision"]
    film = {n: s for n, s in shapes.items() if n.split(".")[-2] in ("scale", "shift")}
    assert shapes["vision_backbone.featurizer.blocks.23.scale.weight"] == (1024, 4096)
    assert shapes["vision_backbone.fused_featurizer.blocks.26.shift.bias"] == (1152,)
    assert shapes["vision_backbone.fused_featurizer.blocks.0.block.attn.qkv.weight"] == (3456, 1152)
    count = sum(torch.Size(s).numel() for s in film.values())
    assert count == 4097 * 2 * (24 * 1024 + 27 * 1152)
    assert sum(p.numel() for p in policy.film.parameters()) == count - 4097 * 2 * (1024 + 1152)


def test_adapters_are_merged_as_peft_merges_them():
    """A linear layer and a convolution, and beside them layers without adapters."""
    layers = nn.ModuleDict({"fc": nn.Linear(6, 4), "conv": nn.Conv2d(3, 4, 2, stride=2), "norm": nn.LayerNorm(4)})
    config = peft.LoraConfig(r=20, lora_alpha=16, target_modules=["fc", "conv"], init_lora_weights=False)
    adapted = peft.get_peft_model(layers, config).base_model.model
    file = VisionFile({name: tensor.clone() for name, tensor in adapted.state_dict().items()})
    assert file.adapted == {"fc", "conv"}
    for layer in ("fc", "conv"):
        adapted[layer].merge()
    merged = {n.replace(".base_layer", ""): t for n, t in adapted.state_dict().items() if ".lora_" not in n}
    assert file.keys() == merged.keys()
    for name, tensor in merged.items():
        assert file.shapes[name] == tuple(tensor.shape)
        torch.testing.assert_close(file[name], tensor)


def test_what_fits_no_layer_is_named(tmp_path):
    path = released.write(tmp_path / "x", "oft", film=True, **ROBOT)
    tensors = torch.load(path / FILE)
    root = "vision_backbone.featurizer."
    del tensors[f"{root}blocks.0.block.attn.qkv.lora_A.default.weight"]
    del tensors[f"{root}blocks.1.scale.bias"]
    tensors[f"{root}blocks.1.block.mlp.fc1.lora_B.default.weight"] = torch.zeros(3, 3)
    torch.save(tensors, path / FILE)
    lines = ReleasedCheckpoint(path).differences()
    assert f"vision: missing {root}blocks.0.block.attn.qkv.weight" in lines
    assert f"vision: unexpected {root}blocks.0.block.attn.qkv.lora_B.default.weight" in lines
    assert f"vision: unexpected {root}blocks.1.block.mlp.fc1.base_layer.weight" in lines
    assert f"vision: missing {root}blocks.1.scale.bias" in lines
    with refused(str(path)):
        ReleasedCheckpoint(path).load_policy()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_adapters_and_with_the_prefix_of_ddp_it_is_the_same_file(tmp_path, precision):
    """Only the prefix is not written again."""
    path = released.write(tmp_path / "in", "oft", film=True, **ROBOT)
    generator = torch.Generator().manual_seed(1)
    plain = released.film_tensors(lambda *s: torch.randn(*s, generator=generator).bfloat16(), adapters=False)
    torch.save({f"module.{n}": t for n, t in plain.items()}, path / FILE)
    write_release(load_release(ReleasedCheckpoint(path), precision), tmp_path / "out")
    before, after = everything_in(path), everything_in(tmp_path / "out")
    assert {n.replace("module.vision", "vision") for n in before} == after.keys()
    for name, tensor in plain.items():
        written = after[f"{FILE}/{name}"]
        assert written.dtype == tensor.dtype and torch.equal(written, tensor), name


def test_inspect_shows_it(oft, monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "fixture", SIZE)
    assert main(["inspect", str(oft)]) == 0
    printed = capsys.readouterr().out
    for expected in ("OpenVLA-OFT, step", "vision_backbone: ", "FiLM: ", "nothing", FILE):
        assert expected in printed


def test_it_is_evaluated_in_half_precision(oft):
    """Near the actions of single precision, but not they."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 2, 3, 28, 28), dtype=torch.uint8, generator=generator)
    outputs = []
    for precision in ("float32", "bfloat16"):
        policy = ReleasedCheckpoint(oft).load_policy(precision)
        text = policy.encode_text(["Touch the cube.", "Rest."])
        with torch.no_grad():
            encoded = policy.encode(images, torch.zeros(2, 2), *text)
            outputs.append(policy.step(encoded, policy.memory.read(policy.memory.init_state(2)).tokens).actions.float())
    assert not torch.equal(*outputs)
    torch.testing.assert_close(*outputs, rtol=0.1, atol=0.1)
    assert outputs[0].std() > 0.3, "or the tolerance would prove nothing"


def test_a_training_starts_from_its_towers(cell, oft, without, store):
    """Also with parts=weights, for FiLM is no head; and a policy without FiLM has no place for them."""
    policy = build_policy(cell, get_interface(store, get_prompts(cell), cell))
    loaded = dict(ReleasedCheckpoint(oft).load_policy().named_parameters())
    for name, value in policy.named_parameters():
        assert torch.equal(value, loaded[name]), name
    weights = replace(cell, {"start.parts": "weights"})
    again = build_policy(weights, policy.interface)
    assert torch.equal(again.film.dino[0].scale.weight, loaded["film.dino.0.scale.weight"])
    assert not torch.equal(again.head.fc_in.weight, loaded["head.fc_in.weight"])
    before = build_policy(replace(cell, {"start.checkpoint": str(without)}), policy.interface)
    qkv = "vision.dino.encoder.layer.0.attention.q_proj.weight"
    assert not torch.equal(before.get_parameter(qkv), loaded[qkv])
    with pytest.raises(MuvlaError) as info:
        Trainer(replace(cell, {"model.film": False}), store)
    assert info.value.field == "model.film"


@pytest.mark.parametrize(
    ("start", "lora"),
    [("oft", True), ("oft", False), ("without", True), (None, False)],
    ids=["adapters", "full", "FiLM is new", "drawn"],
)
def test_an_export_computes_the_same(cell, oft, without, store, tmp_path, start, lora):
    """And is written as the published loader wants it, with an adapter at every layer that could be trained further."""
    place = {"oft": oft, "without": without, None: None}[start]
    changes = {"start.checkpoint": place and str(place), "lora.rank": 4 if lora else 0, "optimizer.lr": 5e-3}
    run = trained(replace(cell, changes), store, tmp_path)
    export(run, tmp_path / "out", "recall")
    directory = ReleasedCheckpoint(tmp_path / "out")
    assert directory.film and directory.family == "oft" and directory.differences() == []
    ours, theirs = run.load_policy("cpu"), directory.load_policy()

    def stream():
        return SlotStream(store, cell.data, Statistics.from_store(store), ours.encode_text, slots=4, chunk=8, seed=0)

    one, two = one_step(ours, stream()), one_step(theirs, stream())
    torch.testing.assert_close(one.actions, two.actions, rtol=0.05, atol=0.03)
    assert one.actions.std() > 0.05, "or the tolerance would prove nothing"
    written = torch.load(tmp_path / "out" / "vision_backbone--3_checkpoint.pt")
    given = torch.load(oft / FILE)
    assert {n: t.shape for n, t in written.items()} == {n: t.shape for n, t in given.items()}
    assert {n: t.dtype for n, t in written.items()} == {n: t.dtype for n, t in given.items()}
    assert all(t.any() for n, t in written.items() if ".lora_A." in n)
    unread = "vision_backbone.fused_featurizer.attn_pool.kv.base_layer.weight"
    pool = "vision_backbone.fused_featurizer.attn_pool.kv.weight"
    if start == "oft":
        assert torch.equal(written[unread], given[unread])
    if start == "without":
        assert torch.equal(written[unread], ReleasedCheckpoint(without).parts["weights"][pool])
        assert not written[unread.replace("base_layer", "lora_B.default")].any()
    if place:
        tower = "vision_backbone.featurizer.blocks.0.attn.qkv.weight"
        start_weights, out = ReleasedCheckpoint(place).parts["weights"], directory.parts["weights"]
        assert torch.equal(out[tower], start_weights[tower]), "the towers of before the training, as published"
    if lora:
        names = load_file(tmp_path / "out" / "lora_adapter" / "adapter_model.safetensors")
        layer = "vision_backbone.vision_backbone.featurizer.blocks.0.block.attn.qkv"
        assert f"base_model.model.{layer}.lora_A.weight" in names
        assert len(names) == 2 * (4 * 2 + 4 * 2 + 3 + 14) and not any(".scale." in n for n in names)
