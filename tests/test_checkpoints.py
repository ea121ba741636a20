"""Released directories: what loads, what is refused, and that writing one gives it back."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from helpers import released
from helpers.paths import TESTS
from helpers.release_size import SIZE
from helpers.released_forward import everything_in, published_forward
from muvla.checkpoints import names
from muvla.checkpoints.layout import expected_shapes
from muvla.checkpoints.metadata import MemoryMeta, make_config_json
from muvla.checkpoints.release import Release, load_release, write_release
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.config import MemoryConfig, ModelConfig
from muvla.config.sizes import OPENVLA_7B, SIZES
from muvla.errors import MuvlaError
from muvla.memory.contract import Dimensions
from muvla.memory.registry import build_memory
from muvla.models.policy import Interface, Policy
from muvla.models.preprocessing import prepare
from muvla.models.vision import FusedVision

GOLDEN = TESTS / "golden" / "towers.safetensors"


def test_openvla_7b_has_the_published_parameters_and_sequence():
    """7,541,237,184 parameters in the released weights; 16.8 M, 151.1 M and 262,144 beside them (spec 1.3, 1.7, 2.1);
    571 + m + T tokens (spec 1.1)."""
    m, text = 64, 35
    with torch.device("meta"):
        policy = Policy(
            ModelConfig(OPENVLA_7B, chunk=8, memory_positions="shift"),
            build_memory(MemoryConfig("tokens", m), Dimensions(OPENVLA_7B.width)),
            Interface(cameras=2, proprio_dim=7, action_dim=7, text=text, text_padded=True),
        )
    counts = {
        part: sum(math.prod(shape) for shape in shapes.values())
        for part, shapes in expected_shapes(policy, film=False).items()
    }
    assert counts == {"weights": 7_541_237_184, "head": 151_117_831, "proprio": 16_814_080, "memory": 262_144}
    assert policy.layout().length == 571 + m + text


@pytest.fixture(scope="module")
def shapes_7b():
    with torch.device("meta"):
        policy = Policy(
            ModelConfig(OPENVLA_7B),
            build_memory(MemoryConfig(), Dimensions(OPENVLA_7B.width)),
            Interface(2, 7, 7, 1, True),
        )
    return expected_shapes(policy, film=False)["weights"]


@pytest.mark.parametrize(
    ("name", "shape"),
    {
        "vision_backbone.featurizer.pos_embed": (1, 256, 1024),
        "vision_backbone.featurizer.reg_token": (1, 4, 1024),
        "vision_backbone.featurizer.blocks.23.attn.qkv.weight": (3072, 1024),
        "vision_backbone.featurizer.blocks.0.ls1.scale_factor": (1024,),
        "vision_backbone.fused_featurizer.pos_embed": (1, 256, 1152),
        "vision_backbone.fused_featurizer.blocks.26.mlp.fc1.weight": (4304, 1152),
        "vision_backbone.fused_featurizer.attn_pool.kv.weight": (2304, 1152),
        "projector.fc1.weight": (8704, 2176),
        "projector.fc3.weight": (4096, 4096),
        "language_model.model.embed_tokens.weight": (32064, 4096),
        "language_model.model.layers.31.mlp.gate_proj.weight": (11008, 4096),
        "language_model.lm_head.weight": (32064, 4096),
    }.items(),
)
def test_openvla_7b_has_the_published_names_and_shapes(shapes_7b, name, shape):
    assert shapes_7b[name] == shape


def test_small_is_a_hundred_million_parameters():
    with torch.device("meta"):
        policy = Policy(
            ModelConfig(SIZES["small"]),
            build_memory(MemoryConfig("tokens", 64), Dimensions(640)),
            Interface(2, 7, 7, 35, True),
        )
    assert 100e6 < sum(p.numel() for p in policy.parameters()) < 150e6


def test_the_towers_compute_what_timm_computes():
    """Golden features by timm itself; see scripts/golden_towers.py."""
    golden = load_file(GOLDEN)
    vision = FusedVision(SIZE)
    values = {}
    for rule in names.vla_rules(SIZE):
        if rule.published[0].startswith("vision_backbone."):
            loaded = rule.load(*(golden[name.removeprefix("vision_backbone.")] for name in rule.published))
            values |= {name.removeprefix("vision."): v for name, v in zip(rule.ours, loaded, strict=True)}
    missing, unexpected = vision.load_state_dict(values, strict=False)
    assert not unexpected
    assert all(name.startswith("projector.") or name.endswith("mask_token") for name in missing)
    for prefix, features in (
        ("featurizer.", vision._dino_features(golden["pixels"])),
        ("fused_featurizer.", vision._siglip_features(golden["pixels"])),
    ):
        torch.testing.assert_close(features, golden[prefix + "FEATURES"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "film"), [("muvla", False), ("muvla", True), ("oft", True)])
def test_a_checkpoint_computes_the_published_forward(tmp_path, kind, film):
    """Against the forward written out from the files' own names: towers, projector, proprio, the sequence of spec 1.1
    with the mask of spec 3, the head one to the left, the memory after the closing norm; with FiLM the towers of its
    file with their adapters, modulated by the average of the prompt."""
    path = released.write(tmp_path / "x", kind, film=film)
    release = load_release(ReleasedCheckpoint(path, SIZE))
    policy = release.policy
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 2, 3, 40, 40), dtype=torch.uint8, generator=generator)
    images = prepare(frames, 28, "released")
    proprio = torch.rand(2, 7, generator=generator)
    prompts = [f"In: What action should the robot take to {what}?\nOut:" for what in ("touch the cube.", "rest.")]

    with torch.no_grad():
        encoded = policy.encode(frames, proprio, *policy.encode_text(["Touch the cube.", "Rest."]))
        ours = policy.step(encoded, policy.memory.read(policy.memory.init_state(2)).tokens)
    for i, prompt in enumerate(prompts):  # one by one: the published evaluation knows no batch
        with torch.no_grad():
            actions, memory = published_forward(path, images[i : i + 1], proprio[i : i + 1], prompt)
        torch.testing.assert_close(ours.actions[i : i + 1], actions, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.memory[i : i + 1], memory, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "film", "head"),
    [
        ("oft", False, "l1"),
        ("muvla", False, "l1"),
        ("oft", True, "l1"),
        ("muvla", True, "l1"),
        ("oft", False, "diffusion"),
    ],
)
def test_import_then_export_is_the_identity(tmp_path, kind, film, head):
    source = released.write(tmp_path / "in", kind, film=film, head=head)
    write_release(load_release(ReleasedCheckpoint(source, SIZE)), tmp_path / "out")
    before, after = (everything_in(path) for path in (source, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == after[name].dtype and torch.equal(value, after[name]), name
        else:
            assert value == after[name], name


def test_a_native_policy_comes_back_rounded_to_the_published_dtypes(tmp_path):
    """And once it has been, another round changes nothing: the class token's position is folded once."""
    from muvla.models.init import initialise

    policy = Policy(
        ModelConfig(SIZE, chunk=8, memory_positions="shift"),
        build_memory(MemoryConfig("tokens", 3), Dimensions(24)),
        Interface(2, 7, 7, 64, True),
    )
    initialise(policy, 0)
    meta = {"num_mem_tokens": 3, "memory_update": "tbptt", "tbptt_length": 8, "attention_mask_mode": "custom"}
    statistics = {"muvla": {"action": released.bounds(7), "proprio": released.bounds(7)}}
    native = Release(policy, {}, make_config_json(SIZE), statistics, meta, "7")
    write_release(native, tmp_path / "one")
    once = load_release(ReleasedCheckpoint(tmp_path / "one"))
    write_release(once, tmp_path / "two")
    twice = load_release(ReleasedCheckpoint(tmp_path / "two"))
    for name, value in policy.named_parameters():
        if "mask_token" in name or "cls_token" in name or "position_embeddings" in name:
            continue
        dtype = torch.float32 if name.startswith("proprio.") else torch.bfloat16
        assert torch.equal(once.policy.get_parameter(name), value.to(dtype).float()), name
    for name, value in once.policy.named_parameters():
        assert torch.equal(twice.policy.get_parameter(name), value), name


def test_a_release_without_proprio_says_so(tmp_path):
    """Its files alone cannot: a projector that was not downloaded looks the same."""
    path = released.write(tmp_path / "x", "oft", own={"muvla_proprio": False})
    next(path.glob("proprio_projector--*")).unlink()
    policy = ReleasedCheckpoint(path, SIZE).load_policy()
    assert policy.proprio is None and policy.layout().length == 1 + 8 + 64 + 56 + 1
    (path / "config.json").write_text(
        json.dumps(json.loads((path / "config.json").read_text()) | {"muvla_proprio": True})
    )
    with pytest.raises(MuvlaError) as info:
        ReleasedCheckpoint(path, SIZE)
    assert info.value.field == str(path) and "muvla_proprio" in info.value.remedy


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, (MemoryConfig("tokens", 5), 2, "context")),
        ({"tbptt_length": 8, "attention_mask_mode": "full"}, (MemoryConfig("tokens", 5), 8, "full")),
        ({"memory_update": "ema"}, (MemoryConfig("tokens", 5, alpha=0.1), 1, "context")),
        ({"attention_mask_mode": None}, (MemoryConfig("tokens", 5), 2, "context")),
    ],
)
def test_the_memory_is_read_off_its_meta_file(tmp_path, meta, expected):
    assert ReleasedCheckpoint(released.write(tmp_path / "x", **meta), SIZE).memory == MemoryMeta(*expected)


@pytest.mark.parametrize("kind", ["openvla", "oft", "muvla"])
def test_the_kind_is_told_by_what_is_there(tmp_path, kind):
    directory = ReleasedCheckpoint(released.write(tmp_path / "x", kind), SIZE)
    assert directory.family == kind and directory.differences() == []
    assert list(directory.statistics) == ["mikasa_combined"]


def test_openvla_itself_has_no_actions_to_predict(tmp_path):
    with pytest.raises(MuvlaError) as info:
        load_release(ReleasedCheckpoint(released.write(tmp_path / "x", "openvla"), SIZE))
    assert info.value.field.endswith("x")
