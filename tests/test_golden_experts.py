"""The action expert computes what the published code of MemoryVLA, CogACT and CronusVLA computes."""

import pytest
import torch

from helpers.golden import load_golden
from helpers.published_expert import load_expert, ours
from muvla.models.action_expert import Condition
from muvla.models.expert_sampling import get_levels, mix

PRECISIONS = (torch.float32, torch.float64)
EXACT = {torch.float32: 5e-6, torch.float64: 1e-9}


def inputs(golden, dtype, *names):
    tensors = (golden.tensors[f"in.{name}"] for name in names)
    return [t.to(dtype) if t.is_floating_point() else t for t in tensors]


def compare_gradients(golden, prefix, expert, windowed=False):
    """Hold the gradient of every parameter that the set stores against it.

    Args:
        golden: the set.
        prefix: of the stored gradients.
        expert: after its backward pass.
        windowed: CronusVLA's expert.
    """
    start = f"out.{prefix}"
    unread = f"{start}history_embedder."  # no code reads it
    stored = [n.removeprefix(start) for n in golden.tensors if n.startswith(start) and not n.startswith(unread)]
    gradients = {name: p.grad for name, p in expert.named_parameters()}
    for name in stored:
        golden.compare(f"{prefix}{name}", gradients[ours(name.removeprefix("action_model.net."), windowed)])
    return len(stored)


@pytest.fixture
def outputs(monkeypatch):
    """Name → output of every block and attention of the last pass of an expert."""
    seen = {}

    def watch(expert, cross):
        for i, block in enumerate(expert.blocks):
            for part, name in ((block, "out"), (block.attention, "self_attn"), (block.cross, cross)):
                if part is not None:
                    keep = lambda _, __, result, key=f"block{i}.{name}": seen.update({key: result})  # noqa: E731
                    part.register_forward_hook(keep)
        return seen

    return watch


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("weights", ["released", "released_trained_head", "random"])
def test_the_expert_with_perception_predicts_the_published_noise(weights, dtype, outputs):
    golden = load_golden("memoryvla/c1_dit_forward")
    expert = load_expert(golden, f"{weights}.", dtype, 8)
    seen = outputs(expert, "per_attn")
    x, t, z, per, target = inputs(golden, dtype, "x", "t", "z", "per", "target")
    condition = Condition(z, per)
    golden.compare(f"{weights}.eval.t_emb", expert.level(t))
    golden.compare(f"{weights}.eval.z_emb", expert.feature(z))
    golden.compare(f"{weights}.eval.eps", expert(x, t, condition))
    assert len(seen) == 6
    for name, value in seen.items():
        golden.compare(f"{weights}.eval.{name}", value)
    predicted = expert(x, t, condition, golden.tensors["in.rand_drop"] < 0.1)
    golden.compare(f"{weights}.train.eps", predicted)
    ((predicted - target) ** 2).mean().backward()
    assert compare_gradients(golden, f"{weights}.train.grad.", expert) == 15
    if weights == "random":
        guided = expert.guided(x, t, condition)
        golden.compare("random.cfg1.5", guided.repeat(2, 1, 1))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("weights", ["released", "random"])
def test_the_loss_of_four_draws_is_the_published_loss(weights, dtype):
    golden = load_golden("memoryvla/c2_action_loss")
    expert = load_expert(golden, f"{weights}.", dtype, 8)
    actions, noise, level, z, per = inputs(golden, dtype, "actions", "noise", "timestep", "z", "per")
    z.requires_grad_(), per.requires_grad_()
    noisy = mix(actions.repeat(4, 1, 1), noise, level, 100)
    golden.compare(f"{weights}.x_t", noisy)
    predicted = expert(noisy, level, Condition(z, per).repeated(4), golden.tensors["in.rand_drop"] < 0.1)
    golden.compare(f"{weights}.eps_pred", predicted)
    loss = ((predicted - noise) ** 2).mean()
    golden.compare(f"{weights}.loss", loss.view(1))
    loss.backward()
    golden.compare(f"{weights}.grad.z", z.grad)
    golden.compare(f"{weights}.grad.per", per.grad)
    if weights == "random":
        assert compare_gradients(golden, "random.grad.action_model.net.", expert) > 40


def test_the_noise_levels_are_the_published_constants():
    golden = load_golden("memoryvla/c3_sampling").tensors
    for name, levels in (("schedule100", get_levels(100)), ("schedule_ddim10", get_levels(100, 10))):
        for ours_, theirs in (
            (levels.left, "alphas_cumprod"),
            (levels.left_before, "alphas_cumprod_prev"),
            (levels.beta, "betas"),
            (levels.posterior_variance, "posterior_variance"),
        ):
            torch.testing.assert_close(ours_, golden[f"out.{name}.{theirs}"], rtol=1e-12, atol=1e-12)
    assert torch.equal(get_levels(100, 10).level, golden["out.schedule_ddim10.timestep_map"])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("run", "guidance"), [("cfg1.5", 1.5), ("nocfg", 1.0)])
def test_samples_are_the_published_samples(run, guidance, dtype):
    golden = load_golden("memoryvla/c3_sampling")
    noise, added, z, per = inputs(golden, dtype, "noise", "ddpm_noise", "z", "per")
    for sampler, name in (("ddim", "ddim10"), ("ddpm", "ddpm100")):
        expert = load_expert(golden, "trained.", dtype, 8, guidance=guidance, sampler=sampler)
        draws = torch.cat([noise[None], added[:-1, :2]])[: expert.draws]
        golden.compare(f"{name}.{run}.sample", expert.sample(draws, Condition(z, per)))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_expert_without_perception_is_cogact(dtype, outputs):
    golden = load_golden("cogact/c_action_expert")
    expert = load_expert(golden, "random.", dtype, 16)
    seen = outputs(expert, "none")
    x, t, z = inputs(golden, dtype, "x", "t", "z")
    golden.compare("eval.eps", expert(x, t, Condition(z)))
    for name, value in seen.items():
        golden.compare(f"eval.{name}", value)
    golden.compare("cfg1.5", expert.guided(x, t, Condition(z)).repeat(2, 1, 1))
    actions, noise, level, z = inputs(golden, dtype, "loss.actions", "loss.noise", "loss.timestep", "loss.z")
    dropped = golden.tensors["in.loss.rand_drop"] < 0.1
    predicted = expert(mix(actions.repeat(4, 1, 1), noise, level, 100), level, Condition(z).repeated(4), dropped)
    loss = ((predicted - noise) ** 2).mean()
    golden.compare("loss", loss.view(1))
    loss.backward()
    assert compare_gradients(golden, "loss.grad.action_model.net.", expert) > 25


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_samples_of_cogact_are_the_published_samples(dtype):
    golden = load_golden("cogact/c_action_expert")
    noise, added, z = inputs(golden, dtype, "sample.noise", "sample.ddpm_noise", "sample.z")
    for guidance, sampler, name in (
        (1.5, "ddim", "ddim10.cfg1.5"),
        (1.0, "ddim", "ddim10.nocfg"),
        (1.5, "ddpm", "ddpm100.cfg1.5"),
    ):
        expert = load_expert(golden, "trained.", dtype, 16, guidance=guidance, sampler=sampler)
        draws = torch.cat([noise[None], added[:-1, :2]])[: expert.draws]
        golden.compare(f"{name}.sample", expert.sample(draws, Condition(z)))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_expert_of_a_window_is_cronusvla(dtype, outputs):
    golden = load_golden("cronusvla/e1_decoder")
    expert = load_expert(golden, "", dtype, 12, windowed=True, guided_axis="time")
    seen = outputs(expert, "cross_attn")
    x, t, z = inputs(golden, dtype, "x", "t", "z")
    golden.compare("eval.t_emb", expert.level(t))
    golden.compare("eval.eps", expert(x, t, Condition(z)))
    assert len(seen) == 6
    for name, value in seen.items():
        golden.compare(f"eval.{name}", value)
    golden.compare("train.eps", expert(x, t, Condition(z), golden.tensors["in.rand_drop"] < 0.1))
    golden.compare("cfg.cond_eps", expert(x, t, Condition(z)))
    golden.compare("cfg.uncond_eps", expert(x, t, Condition(z), torch.ones(3, dtype=torch.bool)))
    released = golden.tensors["out.cfg1.5.released"]
    torch.testing.assert_close(expert.guided(x, t, Condition(z)).float(), released[:3], rtol=0, atol=5e-6)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_loss_of_a_window_is_cronusvlas(dtype):
    """The hidden states of past frames get a gradient of exactly zero: a mechanism stores detached copies."""
    golden = load_golden("cronusvla/e1_decoder")
    expert = load_expert(golden, "", dtype, 12, windowed=True)
    hidden, actions, noise, level = inputs(golden, dtype, "loss.hidden", "loss.actions", "loss.noise", "loss.timestep")
    hidden.requires_grad_()
    last = 4 + golden.tensors["in.loss.attention_mask"].long().cumsum(dim=1).argmax(dim=1)
    features = hidden[torch.arange(len(hidden)), last].unflatten(0, (2, 4))
    window = torch.cat([features[:, :-1].detach(), features[:, -1:]], dim=1)
    noisy = mix(actions[:, -12:].repeat(4, 1, 1), noise, level, 100)
    dropped = golden.tensors["in.loss.rand_drop"] < 0.1
    predicted = expert(noisy, level, Condition(window).repeated(4), dropped)
    loss = ((predicted - noise) ** 2).mean()
    golden.compare("loss", loss.view(1))
    loss.backward()
    golden.compare("loss.grad.hidden", hidden.grad)
    assert compare_gradients(golden, "loss.grad.action_model.net.", expert, windowed=True) > 40
    assert hidden.grad.unflatten(0, (2, 4))[:, :-1].abs().max() == 0
