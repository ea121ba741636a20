"""The policy against the OFT computation, written out independently."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from helpers.policies import PADDED_INTERFACE, PLAIN_INTERFACE, frames, random_frames
from muvla.checkpoints.build import build_policy
from muvla.config import no_memory, tbptt
from muvla.config.sizes import SIZES, get_size
from muvla.errors import MuvlaError


def oft_forward(policy, images, proprio, ids):
    """OpenVLA-OFT as published, from its parts: fully bidirectional attention by an all-true 4D mask and stock SDPA,
    plain positions, zeroed action slots, the head one to the left. Uses the policy's weights and none of its step
    code."""
    size = policy.config.size
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            attn_implementation="sdpa",
            use_cache=False,
        )
    )
    llama.load_state_dict(policy.language.state_dict())
    embed = llama.embed_tokens
    n = len(images)
    vision = policy.vision(images)
    slots = torch.zeros(n, policy.config.chunk * 2, size.width)
    sequence = torch.cat(
        [
            embed(torch.zeros(n, 1, dtype=torch.long)),
            vision,
            policy.proprio(proprio),
            embed(ids),
            slots,
            embed(torch.ones(n, 1, dtype=torch.long)),
        ],
        dim=1,
    )
    length = sequence.shape[1]
    mask = torch.ones(n, 1, length, length, dtype=torch.bool)
    hidden = llama(inputs_embeds=sequence, attention_mask=mask).last_hidden_state
    return policy.head(hidden[:, -1 - slots.shape[1] - 1 : -1 - 1])


@pytest.mark.parametrize("positions", [{"model.memory_positions": "shift"}, {"model.reserve": 0}])
@pytest.mark.parametrize("backend", ["split", "dense"])
def test_none_with_guard_full_is_the_oft_computation_bit_for_bit(cell_with, positions, backend):
    cell = cell_with({**no_memory(), "model.guard": "full", "model.attention": backend, **positions})
    policy = build_policy(cell, PLAIN_INTERFACE)
    images, proprio = frames()
    ids, lengths = policy.encode_text(["Touch the marked disc."] * 3)
    ours = policy.step(
        policy.encode(images, proprio, ids, lengths), policy.memory.read(policy.memory.init_state(3)).tokens
    )
    assert torch.equal(ours.actions, oft_forward(policy, images, proprio, ids))


def test_none_adds_no_parameter(cell_with):
    without = dict(build_policy(cell_with(no_memory()), PLAIN_INTERFACE).named_parameters())
    with_memory = dict(build_policy(cell_with(), PLAIN_INTERFACE).named_parameters())
    assert with_memory.keys() - without.keys() == {"memory.initial"}
    assert without.keys() <= with_memory.keys()


def test_shared_parameters_are_bit_identical_whatever_the_memory(cell_with):
    """And the first tokens of a wider memory are those of the narrower one."""
    changes = (no_memory(), tbptt(8, 2), tbptt(1, 8), {"memory.kind": "dummy"}, {"memory.alpha": 0.1})
    reference = dict(build_policy(cell_with(), PLAIN_INTERFACE).named_parameters())
    for change in changes:
        for name, parameter in build_policy(cell_with(change), PLAIN_INTERFACE).named_parameters():
            common = min(len(parameter), len(reference[name]))
            assert torch.equal(parameter[:common], reference[name][:common]), (change, name)


def test_the_training_seed_changes_every_drawn_parameter(cell_with):
    one, two = (build_policy(cell_with({"seed": s}), PLAIN_INTERFACE) for s in (0, 1))
    drawn = [n for n, p in one.named_parameters() if p.ndim > 1 or n.endswith("cls_token")]
    for name in drawn:
        assert not torch.equal(one.get_parameter(name), two.get_parameter(name)), name


def test_every_parameter_is_initialised(cell_with):
    """No parameter keeps what the library or the allocator left in it."""
    first, second = (build_policy(cell_with(), PADDED_INTERFACE) for _ in range(2))
    for name, parameter in first.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert torch.equal(parameter, second.get_parameter(name)), name


def test_the_last_vision_block_is_neither_read_nor_trained(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    before = random_frames(policy, 2)
    with torch.no_grad():
        for parameter in policy.vision.parameters():
            if not parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    assert torch.equal(before.prefix, random_frames(policy, 2).prefix)
    frozen = {n.split(".")[1] for n, p in policy.vision.dino.named_parameters() if not p.requires_grad}
    assert frozen == {"layer", "weight", "bias", "mask_token"}


def test_cameras_are_encoded_separately_and_in_order(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    images, _ = frames()
    both, swapped = policy.vision(images), policy.vision(images.flip(1))
    patches = policy.config.size.patches
    torch.testing.assert_close(both[:, :patches], swapped[:, patches:])


def test_wrong_images_are_refused(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    with pytest.raises(MuvlaError) as info:
        policy.vision(torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8))
    assert info.value.field == "images"
    with pytest.raises(MuvlaError) as info:
        policy.vision(torch.zeros(1, 2, 3, 32, 32))
    assert info.value.field == "images"


def test_sizes():
    assert get_size("tiny") is not SIZES and get_size("tiny", image_size=64).patches == 16
    with pytest.raises(MuvlaError) as info:
        get_size("giant")
    assert info.value.field == "model.size"
    with pytest.raises(MuvlaError) as info:
        get_size("tiny", image_size=40)
    assert info.value.field == "model.size.image_size"


def test_instructions_that_do_not_fit_are_refused(cell_with):
    padded, plain = (build_policy(cell_with(), i) for i in (PADDED_INTERFACE, PLAIN_INTERFACE))
    with pytest.raises(MuvlaError) as info:
        padded.encode_text(["a sentence that nobody wrote into the training data of anything at all"])
    assert info.value.field == "instruction"
    with pytest.raises(MuvlaError) as info:
        plain.encode_text(["Touch it."])
    assert info.value.field == "instruction"
    with pytest.raises(MuvlaError) as info:
        padded.encode_text(["  "])
    assert info.value.field == "instruction"
