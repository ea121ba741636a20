"""Policies with an action expert: CogACT, MemoryVLA and CronusVLA at tiny size."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from helpers.experts import COGACT, EXPERT, MEMORYVLA, POLICIES, with_expert_output
from helpers.policies import PADDED_INTERFACE, PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.config import TaskConfig, canonical
from muvla.config.serialization import content_hash
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.interventions.grammar import parse_intervention
from muvla.models.compilation import compile_step
from muvla.models.leak_test import leak_test
from muvla.models.sequence import Segment
from muvla.probes.attention_maps import observe_attention, probabilities
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer
from sweeps.study import Study

every = pytest.mark.parametrize("name", POLICIES)


@pytest.fixture
def policy_of(cell_with):
    def policy(name, interface=PLAIN_INTERFACE, **changes):
        fields = {key.replace("__", "."): value for key, value in changes.items()}
        return with_expert_output(build_policy(cell_with(POLICIES[name] | fields), interface).eval())

    return policy


@torch.no_grad()
def played(policy, ticks=3, first=0, intervention=None, slots=2):
    """Recurrence and actions after some ticks.

    Args:
        policy: in evaluation mode.
        ticks: number of ticks.
        first: tick of the same episodes at which the recurrence starts.
        intervention: name of an intervention.
        slots: B.
    """
    loop = Recurrence(policy, slots, None if intervention is None else parse_intervention(intervention))
    actions = []
    for t in range(first, first + ticks):
        moment = Moment([t] * slots, [Phase.DELAY] * slots, list("0123"[:slots]), list(range(slots)))
        output, _ = loop.tick(random_frames(policy, slots, seed=t), torch.full((slots,), t == first), moment)
        actions.append(output.actions)
    return loop, torch.stack(actions)


def test_the_sequence_ends_with_the_cognition_token(policy_of):
    """BOS, VISION, TEXT with its closing empty token, STOP; no ACTION token. Padding stands before TEXT."""
    layout = policy_of("cogact", PADDED_INTERFACE).layout()
    segments = layout.segments(torch.tensor([layout.text, 5]))
    assert segments[0].tolist() == [Segment.BOS] + [Segment.VISION] * 8 + [Segment.TEXT] * 12 + [Segment.STOP]
    assert segments[1, 9:16].tolist() == [Segment.PAD] * 7
    assert layout.summary == layout.length - 1 and layout.action_read == slice(layout.length - 1, layout.length)


@pytest.mark.parametrize("interface", [PLAIN_INTERFACE, PADDED_INTERFACE], ids=["plain", "padded"])
def test_causal_attention_is_the_same_in_every_backend_and_sees_no_later_token(policy_of, interface):
    policy = policy_of("cogact", interface)
    encoded = random_frames(policy, 4)
    none = encoded.prefix.new_zeros(4, 0, 96)
    split = policy.run_model(encoded, none)
    policy.config = replace(policy.config, attention="dense")
    dense = policy.run_model(encoded, none)
    torch.testing.assert_close(split[:, -1], dense[:, -1], rtol=1e-5, atol=1e-5)
    later = replace(encoded, stop=encoded.stop + 1)
    changed = policy.run_model(later, none)
    assert torch.equal(changed[:, :-1], dense[:, :-1]) and not torch.equal(changed[:, -1], dense[:, -1])
    policy.config = replace(policy.config, causal=False, guard="full")
    assert not torch.allclose(policy.run_model(later, none)[:, :1], dense[:, :1]), "else the first token sees the last"


def test_a_padded_prompt_computes_what_the_unpadded_prompt_does(policy_of):
    padded, plain = policy_of("cogact", PADDED_INTERFACE), policy_of("cogact")
    frames = random_frames(plain, 1)
    ids, lengths = padded.encode_text(["Touch the marked disc."])
    with torch.no_grad():
        text = padded.language.embed_tokens(ids)
        of_padded = replace(frames, text=text, text_lengths=lengths)
        states = [
            p.run_model(f, frames.prefix.new_zeros(1, 0, 96))[:, -1] for p, f in ((padded, of_padded), (plain, frames))
        ]
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-5)


@every
def test_the_memory_acts_and_forgets_at_an_episodes_start(policy_of, name):
    policy = policy_of(name)
    late, from_start = played(policy, 1, first=2)[1][-1], played(policy)[1][-1]
    assert torch.equal(late, from_start) == (name == "cogact")


@every
def test_the_leak_test_perturbs_the_noisy_actions(policy_of, name, monkeypatch):
    policy = policy_of(name)
    loop, _ = played(policy)
    given = []
    forward = policy.head.forward
    keep = lambda actions, *rest: given.append(actions) or forward(actions, *rest)  # noqa: E731
    monkeypatch.setattr(policy.head, "forward", keep)
    assert leak_test(policy, random_frames(policy, 2), loop.state) == 0.0
    assert name == "cogact" or not torch.equal(given[0], given[1])


@pytest.mark.parametrize("name", ["memoryvla", "dexbotic", "cronusvla"])
def test_the_emptied_twin_has_the_weights_and_no_past(policy_of, name):
    policy, twin = policy_of(name), policy_of(name, memory__emptied=True)
    for (ours, a), (theirs, b) in zip(policy.named_parameters(), twin.named_parameters(), strict=True):
        assert ours == theirs and torch.equal(a, b)
    last, after = played(twin, 1, first=2)[1][-1], played(twin)[1][-1]
    assert torch.equal(last, after), "no past"
    assert not torch.allclose(after, played(policy)[1][-1])


@pytest.mark.parametrize("name", ["memoryvla", "dexbotic", "cronusvla"])
@pytest.mark.parametrize("intervention", ["zero", "empty", "freeze@1..", "skip_read", "noise_relative(1)/read"])
def test_interventions_act(policy_of, name, intervention):
    policy = policy_of(name)
    loop, changed = played(policy, 4, intervention=intervention)
    assert not torch.equal(changed, played(policy, 4)[1]) and loop.fired[0] > 0


def test_perception_alone_can_be_zeroed(policy_of):
    """MemoryVLA has a second stream: the intervention puts zeros in place of the perceptual tokens alone."""
    policy = policy_of("memoryvla")
    loop, changed = played(policy, intervention="zero_perception")
    assert loop.retrieved.perception.abs().max() == 0 and loop.retrieved.content.abs().max() > 0
    assert not torch.equal(changed, played(policy)[1])


def test_at_the_released_initial_values_perception_reaches_no_action(cell_with):
    """With a trained output layer, too: values, query and key are zero."""
    policy = build_policy(cell_with(MEMORYVLA), PLAIN_INTERFACE).eval()
    torch.nn.init.normal_(policy.head.out.weight)
    assert torch.equal(played(policy)[1], played(policy, intervention="zero_perception")[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cogact", "memoryvla", "cronusvla"])
def test_the_loss_falls(store, cell_with, name):
    """On frames that the training sees again and again, with other noise at every visit."""
    changes = {
        "budget.updates": 16,
        "budget.window": 2,
        "optimizer.warmup": 0.0,
        "model.chunk": 1,
        "optimizer.lr": 3e-3,
    }
    trainer = Trainer(cell_with(POLICIES[name] | changes | {"model.expert.repeats": 16}), store)
    window = trainer.stream.window(2)
    visits = iter(range(100))
    trainer.stream.window = lambda _: replace(window, visit=window.visit + next(visits))
    losses = [trainer.step()[0] for _ in range(16)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4]), losses
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in trainer.parameters)


def test_noise_levels_and_drops_are_keyed_by_the_visit(store, cell_with):
    """Cells of one seed share them; draws of a sample and samples of a batch do not."""
    trainer = Trainer(cell_with(COGACT), store)
    window = trainer.stream.window(2)
    noised = trainer.add_label_noise(window.label[0], window, 0)
    assert noised.actions.shape == (16, 2, 2) and noised.time.shape == noised.dropped.shape == (16,)
    again = Trainer(cell_with(MEMORYVLA), store).add_label_noise(window.label[0], window, 0)
    assert torch.equal(noised.noise, again.noise) and torch.equal(noised.time, again.time)
    assert torch.equal(noised.dropped, again.dropped)
    assert len({tuple(row.flatten().tolist()) for row in noised.noise}) == 16
    many = [trainer.add_label_noise(window.label[0], replace(window, visit=window.visit + i), 0) for i in range(100)]
    assert 0.05 < torch.stack([n.dropped for n in many]).float().mean() < 0.15
    assert {int(t) for n in many for t in n.time} == set(range(100))


def test_an_experts_tick_is_independent_of_the_batch(policy_of):
    """Its noise is keyed by the slot's episode and step."""
    for sampler, ticks in (("ddim", 3), ("ddpm", 1)):
        policy = policy_of("memoryvla", model__expert__sampler=sampler)
        both, alone = played(policy, ticks, slots=2)[1], played(policy, ticks, slots=1)[1]
        torch.testing.assert_close(both[:, :1], alone, rtol=1e-4, atol=1e-4)


def test_one_pass_of_a_window_is_the_same_training(store, cell_with):
    losses = []
    for one_pass in (False, True):
        trainer = Trainer(cell_with(MEMORYVLA), store, one_pass=one_pass)
        losses.append([trainer.step()[0] for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model.causal": True}, "model.causal"),
        ({"memory.kind": "bank", "memory.place": "condition"}, "memory.place"),
        ({"memory.kind": "gru", "memory.place": "condition"}, "memory.place"),
        (EXPERT | {"data.tail": "mask"}, "data.tail"),
        (EXPERT | {"data.labels": "masked"}, "data.labels"),
        (EXPERT | {"model.expert.dropped": 0.0}, "model.expert.guidance"),
    ],
)
def test_what_cannot_be_is_refused(cell_with, changes, field):
    with pytest.raises(MuvlaError) as info:
        cell_with(changes)
    assert info.value.field == field


def test_fields_that_an_expert_does_not_use_share_one_identity(cell_with):
    identity = lambda *changes: content_hash(canonical(cell_with(COGACT | dict(changes))))  # noqa: E731
    assert identity(("model.guard", "full")) == identity()
    assert identity(("model.expert.per_attn_init", "fixed")) == identity()
    assert identity(("model.causal", False)) != identity()
    without = (("model.expert.guidance", 1.0),)
    assert identity(*without, ("model.expert.guided_axis", "time")) == identity(*without) != identity()
    ddpm = (("model.expert.sampler", "ddpm"),)
    assert identity(*ddpm, ("model.expert.sampled_steps", 20)) == identity(*ddpm) != identity()
    bank = lambda init: content_hash(canonical(cell_with(MEMORYVLA | {"model.expert.per_attn_init": init})))  # noqa: E731
    assert bank("released") != bank("fixed")
    plain = content_hash(canonical(cell_with({})))
    assert content_hash(canonical(cell_with({"model.expert.layers": 3}))) == plain, "another head has no expert"


@pytest.mark.parametrize("mechanism", ["tokens", "gru"])
def test_every_other_mechanism_runs_with_an_expert(cell_with, mechanism):
    """MEMORY tokens stand before the text, and a place at the head acts on the cognition token."""
    named = ({"memory.place": place} for place in ("context", "fuse", "modulate"))
    places = named if mechanism == "gru" else ({},)
    for place in places:
        policy = build_policy(cell_with(EXPERT | {"memory.kind": mechanism} | place), PLAIN_INTERFACE)
        _, actions = played(with_expert_output(policy.eval()), 2)
        assert actions.shape == (2, 2, 2, 2) and bool(actions.isfinite().all())


def test_a_query_at_every_step_counts_the_same_time_in_steps_and_in_queries(policy_of):
    """The table of ablations therefore has no variant that counts queries."""
    in_steps, in_queries, without = (
        played(policy_of("memoryvla", memory__time_code=code))[1] for code in ("step", "call", "none")
    )
    assert torch.equal(in_steps, in_queries) and not torch.equal(in_steps, without)


@pytest.mark.parametrize("streams", ["perceptual", "cognitive"])
def test_a_single_stream_conditions_the_expert(policy_of, streams):
    """Without the cognitive stream the expert reads the cognition token itself; without the other no perception."""
    policy = policy_of("memoryvla", memory__streams=streams)
    assert (policy.head.perception is None) == (streams == "cognitive")
    assert not torch.equal(played(policy, 1, first=2)[1][-1], played(policy)[1][-1])


def test_every_study_of_a_policy_with_perception_runs_without_it_too(cell_with):
    """The intervention is part of every report on MemoryVLA, and of no other policy's."""
    protocol = Protocol("test-expert", 1, TaskConfig("RecallPosition3-v0"), episodes=2, slots=2)
    variants = {"bank": {}, "none": {"memory.kind": "none"}}
    factors = ("memory.kind",)
    study = Study("expert", "a test", cell_with(MEMORYVLA), variants, factors, (0,), (protocol,), ("zero",))
    names = {item.variant: [name for _, name in study.conditions(item.cell)] for item in study.cells()}
    assert names == {"bank": ["none", "zero", "zero_perception"], "none": ["none"]}


def test_the_observed_attention_is_causal(policy_of):
    """The maps of a probe give no weight to later tokens, and the cognition token sees every token."""
    policy, seen = policy_of("cogact"), []

    def keep(layer, q, k, v, plan, scale, out):
        seen.append(probabilities(q, k, plan.segments.expand(len(q), -1), plan.guard, scale, plan.layout.causal) @ v)
        torch.testing.assert_close(seen[-1].transpose(1, 2), out, rtol=1e-4, atol=1e-5)

    with observe_attention(policy, keep), torch.no_grad():
        policy.run_model(random_frames(policy, 2), torch.zeros(2, 0, 96))
    assert len(seen) == 2


@pytest.mark.slow
def test_the_expert_compiles_with_the_language_model(policy_of):
    """Every block is compiled; a backend that runs the graph as it is gives the same actions."""
    policy, graphs = policy_of("memoryvla"), []
    plain = played(policy, 1)[1]
    compile_step(policy, lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(played(policy, 1)[1], plain, rtol=1e-4, atol=1e-4)
    assert len(graphs) >= 2, "a language layer and an expert block"


@pytest.fixture(scope="module")
def losses_of(store, cell_with):
    """The losses of three updates of a window of one tick."""

    @lru_cache
    def losses(*changes):
        fields = {"budget.window": 1, "budget.updates": 3, "optimizer.warmup": 0.0, "optimizer.lr": 1e-2}
        trainer = Trainer(cell_with(MEMORYVLA | fields | dict(changes)), store)
        return [trainer.step()[0] for _ in range(3)]

    return losses


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("model.causal", False),
        ("model.expert.layers", 1),
        ("model.expert.width", 32),
        ("model.expert.heads", 2),
        ("model.expert.steps", 50),
        ("model.expert.repeats", 3),
        ("model.expert.dropped", 0.9),
        ("model.expert.per_attn_init", "fixed"),
    ],
)
def test_every_knob_of_the_training_of_an_expert_bites(losses_of, knob, value):
    assert losses_of((knob, value)) != losses_of()
