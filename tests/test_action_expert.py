"""The action expert: initial values, the stationary point of its perception attention, and its configuration."""

import pytest
import torch

from muvla.config.expert import ExpertConfig, get_expert
from muvla.errors import MuvlaError
from muvla.memory.contract import Conditions
from muvla.models.action_expert import ActionExpert, Condition
from muvla.models.expert_sampling import mix
from muvla.models.init import initialise

SMALL = {"layers": 2, "width": 32, "heads": 4}


def build_expert(**changes):
    expert = ActionExpert(ExpertConfig(**(SMALL | changes)), Conditions(perception=8), chunk=4, action_dim=3, width=16)
    initialise(expert, seed=0)
    return expert


def train(expert, updates=40):
    """Learns to denoise random actions that depend on perceptual tokens."""
    g = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(updates):
        actions, noise = torch.rand(2, 16, 4, 3, generator=g) * 2 - 1
        condition = Condition(
            torch.randn(16, 1, 16, generator=g), actions[:, :1, :1] * torch.randn(16, 6, 8, generator=g)
        )
        level = torch.randint(100, (16,), generator=g)
        predicted = expert(mix(actions, noise, level, 100), level, condition)
        optimizer.zero_grad()
        ((predicted - noise) ** 2).mean().backward()
        optimizer.step()
    return expert


def queries_and_keys(expert):
    return [block.cross.qkv.weight[:64].abs().max().item() for block in expert.blocks]


def test_the_released_perception_attention_stays_at_a_stationary_point():
    """Query and key start at zero and keep a gradient of exactly zero; the layer is a mean over tokens (M 3.1)."""
    released = train(build_expert())
    assert queries_and_keys(released) == [0.0, 0.0]
    assert released.blocks[0].cross.qkv.weight[64:].abs().max() > 1e-3, "values learn"
    x, level = torch.randn(2, 4, 3), torch.tensor([3, 70])
    feature, tokens = torch.randn(2, 1, 16), torch.randn(2, 6, 8)
    predict = lambda expert, t: expert(x, level, Condition(feature, t))  # noqa: E731
    mean = tokens.mean(dim=1, keepdim=True).expand(-1, 6, -1)
    torch.testing.assert_close(predict(released, tokens), predict(released, mean), rtol=0, atol=1e-5)
    fixed = train(build_expert(per_attn_init="fixed"))
    assert min(queries_and_keys(fixed)) > 0.1
    assert (predict(fixed, tokens) - predict(fixed, mean)).abs().max() > 1e-4


def test_both_initial_values_start_from_the_same_output():
    """The final layer starts at zero in either case, so the first loss is the mean of the squared noise."""
    for init in ("released", "fixed"):
        expert = build_expert(per_attn_init=init)
        out = expert(
            torch.randn(2, 4, 3), torch.tensor([3, 70]), Condition(torch.randn(2, 1, 16), torch.randn(2, 6, 8))
        )
        assert out.abs().max() == 0


def test_initial_values_are_the_released_distributions():
    expert = build_expert(width=256)
    assert expert.positions.std().item() == pytest.approx(256**-0.5, rel=0.1)
    for name in ("noisy.weight", "level.hidden.weight", "feature.weight", "perception.weight", "null"):
        assert expert.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.25), name
    largest = (6 / (256 + 768)) ** 0.5
    assert expert.blocks[1].attention.qkv.weight.abs().max().item() == pytest.approx(largest, rel=0.01)
    assert expert.blocks[1].cross.out.weight.std() > 0.05 and expert.blocks[1].cross.norm.weight.eq(1).all()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dropped": 0.0}, "model.expert.guidance"),
        ({"guidance": 0.5}, "model.expert.guidance"),
        ({"guidance": float("nan")}, "model.expert.guidance"),
        ({"dropped": 1.0}, "model.expert.dropped"),
        ({"heads": 5}, "model.expert.heads"),
        ({"sampled_steps": 60}, "model.expert.sampled_steps"),
        ({"sampled_steps": 0}, "model.expert.sampled_steps"),
        ({"sampler": "euler"}, "model.expert.sampler"),
        ({"per_attn_init": "zero"}, "model.expert.per_attn_init"),
        ({"guided_axis": "chunk"}, "model.expert.guided_axis"),
        ({"layers": 0}, "model.expert.layers"),
        ({"repeats": 0}, "model.expert.repeats"),
    ],
)
def test_an_expert_that_cannot_be_is_refused(changes, field):
    with pytest.raises(MuvlaError) as info:
        ExpertConfig(**changes)
    assert info.value.field == field


def test_an_expert_without_dropping_samples_without_guidance():
    assert get_expert("DiT-S", dropped=0.0, guidance=1.0).layers == 6
    with pytest.raises(MuvlaError) as info:
        get_expert("DiT-XL")
    assert info.value.field == "model.expert"


@pytest.mark.parametrize(
    "changes",
    [{"guidance": 1.0}, {"guided_axis": "time"}, {"sampler": "ddpm"}, {"sampled_steps": 5}],
)
def test_every_choice_of_sampling_bites(changes):
    samples = []
    for config in ({}, changes):
        expert = build_expert(**config)
        with torch.no_grad():
            for block in expert.blocks:
                block.cross.qkv.weight.normal_(generator=torch.Generator().manual_seed(1))
            expert.out.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
        noise = torch.randn(100, 2, 4, 3, generator=torch.Generator().manual_seed(3))[: expert.draws]
        condition = Condition(torch.ones(2, 1, 16), torch.ones(2, 6, 8))
        samples.append(expert.sample(noise, condition))
    assert not torch.equal(*samples)
