"""FiLM: what it computes, what reaches it, and how it is trained (spec 1.10)."""

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from helpers import released
from helpers.policies import PADDED_INTERFACE, PLAIN_INTERFACE, PROMPTS, TEXT, frames, gradients
from helpers.release_size import ANATOMY, SIZE
from muvla.checkpoints import native as ckpt
from muvla.checkpoints.build import build_policy
from muvla.checkpoints.native_policy import load_policy
from muvla.config import ema, no_memory, tbptt
from muvla.config.serialization import content_hash, replace
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer

FILM = {"model.film": True}


def vision_of(policy, instructions, images=None):
    """(N, V·P, D) as they stand in the prefix."""
    images = frames(len(instructions))[0] if images is None else images
    encoded = policy.encode(images, torch.zeros(len(images), 2), *policy.encode_text(instructions))
    return encoded.prefix[:, 1:-1]


def test_without_it_a_policy_is_what_it_was(cell_with):
    """The same parameters, and the identity that the cell had before the option was there."""
    without = dict(build_policy(cell_with(), PLAIN_INTERFACE).named_parameters())
    with_film = dict(build_policy(cell_with(FILM), PLAIN_INTERFACE).named_parameters())
    new = with_film.keys() - without.keys()
    assert new == {n for n in with_film if n.startswith("film.")}
    assert all(torch.equal(without[n], with_film[n]) for n in without)
    assert content_hash(cell_with()) == content_hash(cell_with({"model.film": False})) != content_hash(cell_with(FILM))


def test_layers_of_zeros_leave_vision_bit_for_bit_as_it_is(cell_with):
    plain, film = (build_policy(cell_with(change), PADDED_INTERFACE) for change in ({}, FILM))
    with torch.no_grad():
        for parameter in film.film.parameters():
            parameter.zero_()
    assert torch.equal(vision_of(plain, PROMPTS), vision_of(film, PROMPTS))


def by_hand(get, pixels, names, heads, prefix, e):
    """A tower from its tensors `get(name)`, from embedded tokens to the end of the last block but one."""
    x = pixels
    for i in range(names["blocks"]):

        def of(name, i=i):
            return get(f"{names['block']}.{i}.{name}.weight"), get(f"{names['block']}.{i}.{name}.bias")

        def norm(x, name, of=of):
            return layer_norm(x, x.shape[-1:], *of(name), eps=1e-6)

        h = norm(x, names["norm"] + "1")
        q, k, v = (
            linear(h, *of(f"{names['attention']}.{p}_proj")).unflatten(-1, (heads, -1)).transpose(1, 2) for p in "qkv"
        )
        attended = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        gain = [get(f"{names['block']}.{i}.layer_scale{n}.lambda1") if prefix else 1 for n in "12"]
        x = x + linear(attended, *of(f"{names['attention']}.{names['out']}")) * gain[0]
        layer = f"film.{names['film']}.{i}"
        gamma, beta = (linear(e, get(f"{layer}.{n}.weight"), get(f"{layer}.{n}.bias")) for n in ("scale", "shift"))
        x = x * (1 + gamma[:, None]) + beta[:, None]
        h = gelu(linear(norm(x, names["norm"] + "2"), *of("mlp.fc1")))
        x = x + linear(h, *of("mlp.fc2")) * gain[1]
    return x[:, prefix:]


def test_it_computes_the_published_blocks(cell_with):
    """Against towers written out from the policy's tensors; the average is over BOS, the prompt's own tokens and STOP,
    and both cameras of a frame have it."""
    policy = build_policy(cell_with(FILM), PADDED_INTERFACE)
    policy.requires_grad_(False)
    for layer in policy.film.parameters():  # biases are drawn as zeros, and the drawn embeddings are short
        layer.add_(torch.randn(layer.shape, generator=torch.Generator().manual_seed(1)))
    size, values = policy.config.size, dict(policy.named_parameters())
    images, _ = frames(len(PROMPTS))
    table, prompts = values["language.embed_tokens.weight"], policy.prompts
    e = torch.stack([table[[prompts.bos, *prompts.encode(text), prompts.stop]].mean(0) for text in PROMPTS])
    cameras = []
    for camera in range(2):
        pixels = images[:, camera].float() / 255
        mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        dino = by_hand(
            values.__getitem__,
            policy.vision.dino.embeddings((pixels - mean) / std),
            {
                "block": "vision.dino.encoder.layer",
                "blocks": size.dino.layers - 1,
                "norm": "norm",
                "attention": "attention",
                "out": "o_proj",
                "film": "dino",
            },
            size.dino.heads,
            5,
            e,
        )
        siglip = by_hand(
            values.__getitem__,
            policy.vision.siglip.embeddings(pixels * 2 - 1),
            {
                "block": "vision.siglip.encoder.layers",
                "blocks": size.siglip.layers - 1,
                "norm": "layer_norm",
                "attention": "self_attn",
                "out": "out_proj",
                "film": "siglip",
            },
            size.siglip.heads,
            0,
            e,
        )
        cameras.append(policy.vision.projector(torch.cat([dino, siglip], dim=-1)))
    torch.testing.assert_close(vision_of(policy, PROMPTS, images), torch.cat(cameras, dim=1), rtol=1e-4, atol=1e-4)


def test_the_instruction_reaches_vision(cell_with):
    images = frames(1)[0].expand(len(PROMPTS), -1, -1, -1, -1)
    plain, film = (
        vision_of(build_policy(cell_with(change), PADDED_INTERFACE), PROMPTS, images) for change in ({}, FILM)
    )
    for i in range(1, len(PROMPTS)):
        assert torch.equal(plain[0], plain[i])
        assert not torch.equal(film[0], film[i])


def test_padding_and_neighbours_do_not(cell_with):
    """A row sees its own prompt: bit for bit in a batch of one shape, and up to the order of the sum in another."""
    policy = build_policy(cell_with(FILM), PADDED_INTERFACE)
    short = PROMPTS[1]
    alone, mixed = vision_of(policy, [short] * 3), vision_of(policy, [short, PROMPTS[0], PROMPTS[3]])
    assert torch.equal(alone[0], mixed[0]) and len(policy.prompts.encode(short)) < TEXT
    unpadded = build_policy(cell_with(FILM), PLAIN_INTERFACE)
    torch.testing.assert_close(vision_of(unpadded, [short] * 3), alone)
    with torch.no_grad():
        policy.language.embed_tokens.weight[policy.prompts.pad] = float("nan")
    assert torch.equal(vision_of(policy, [short] * 3), alone)


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_knob_bites_on_what_both_have(store, cell_with):
    def trained(change):
        trainer = Trainer(cell_with(change), store)
        before = {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}
        trainer.step()
        return before, dict(trainer.policy.named_parameters())

    (_, plain), (before, film) = trained({}), trained(FILM)
    assert not torch.equal(plain["head.fc_out.weight"], film["head.fc_out.weight"])
    assert all(not torch.equal(film[n], before[n]) for n in film if n.startswith("film."))


@pytest.mark.parametrize(
    "change", [tbptt(8, 4), tbptt(2, 4), ema(0.1, 4), no_memory()], ids=["K=8", "K=2", "ema", "none"]
)
def test_gradients_are_the_same_when_blocks_are_computed_again(store, cell_with, change):
    kept, again = (gradients(cell_with({**change, **FILM}), store, recompute) for recompute in (False, True))
    assert kept[0] == again[0]
    for name, one, other in zip(kept[2].names, kept[1], again[1], strict=True):
        assert (one is None and other is None) or torch.equal(one, other), name
        assert not name.startswith("film.") or one.abs().max() > 0, name


@pytest.mark.parametrize(("recompute", "times"), [(False, 1), (True, 2)])
def test_blocks_are_computed_twice(store, cell_with, recompute, times):
    trainer = Trainer(cell_with(FILM), store, checkpoint_gradients=recompute)
    vision, calls = trainer.policy.vision, []
    for name, block in (("dino", vision.dino.encoder.layer[0]), ("siglip", vision.siglip.encoder.layers[0])):
        block.mlp.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    trainer.backward(trainer.stream.window(8))
    assert {name: calls.count(name) for name in calls} == {"dino": times, "siglip": times}


@pytest.mark.parametrize("lora", [{}, {"lora.rank": 4}], ids=["full", "adapters"])
def test_half_precision(store, cell_with, base_release, lora):
    """Near the losses of single precision but not they, from a release with adapters as from nothing; and the layers
    are kept and trained in single."""
    start = {"start.checkpoint": str(base_release), **lora, "model.images": "resized"} if lora else {}
    cell = replace(cell_with({**FILM, "model.size": SIZE} if lora else FILM), start)
    trainers = [Trainer(replace(cell, {"model.precision": p}), store) for p in ("float32", "bfloat16")]
    losses = [trainer.step()[0] for trainer in trainers]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)
    assert all(p.dtype == torch.float32 for p in trainers[1].policy.film.parameters())


@pytest.fixture(scope="module")
def base_release(tmp_path_factory):
    """Without FiLM, of the recall suite's robot."""
    return released.write(tmp_path_factory.mktemp("base") / "oft", "oft", action=2, proprio=2, own=ANATOMY)


def test_with_adapters_its_layers_are_trained_in_full(store, cell_with, base_release, tmp_path):
    """They are drawn from the seed where the checkpoint has none, have no adapters of their own, and come back."""
    cell = cell_with(
        {**FILM, "model.size": SIZE, "model.images": "resized", "start.checkpoint": str(base_release), "lora.rank": 4}
    )
    trainer = Trainer(cell, store)
    film = {n for n, _ in trainer.policy.named_parameters() if n.startswith("film.")}
    assert len(film) == 2 * 2 * (SIZE.dino.layers - 1 + SIZE.siglip.layers - 1) and film < set(trainer.names)
    assert not any(".lora_" in n for n in film)
    drawn = build_policy(replace(cell, {"lora.rank": 0, "start.checkpoint": None}), trainer.interface)
    before = {n: trainer.policy.get_parameter(n).detach().clone() for n in film}
    assert all(torch.equal(before[n], drawn.get_parameter(n)) for n in film)
    again = load_policy(ckpt.load(train_to_the_end(trainer, tmp_path)))
    for name in film:
        value = again.get_parameter(name)
        assert not torch.equal(value, before[name]) and torch.equal(value, trainer.policy.get_parameter(name)), name
