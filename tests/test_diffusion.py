"""The diffusion head: schedule, sampling, sequence, training, evaluation, files."""

import dataclasses
import itertools

import pytest
import torch

from helpers import released
from helpers.errors import refused_at
from helpers.policies import PADDED_INTERFACE, PLAIN_INTERFACE, random_frames
from helpers.release_size import SIZE
from helpers.released_forward import published_forward
from muvla.checkpoints.build import build_policy
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.config import TaskConfig, dummy, no_memory
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.models.diffusion import STEPS, NoisyActions, add_noise, denoise, kept_variance
from muvla.models.leak_test import leak_test
from muvla.models.sequence import Layout, Segment
from muvla.training.trainer import Trainer

DIFFUSION = {"model.head": "diffusion", "data.tail": "repeat"}


def test_the_schedule_and_the_sampler_are_those_of_diffusers():
    """Numbers by diffusers 0.42.1, DDIMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2")."""
    expected = [0.9982525110244751, 0.9945700168609619, 0.8791225552558899, 0.46270686388015747, 9.711807251733262e-07]
    assert kept_variance()[[0, 1, 10, 25, 49]].tolist() == pytest.approx(expected, rel=2e-5)  # of float32
    asked = []

    def predict(actions, time):
        asked.append(time.tolist())
        return 0.7 * torch.tanh(actions) + time.view(-1, 1, 1) / 100

    start = torch.tensor([-1.5, -0.2, 0.4, 2.0], dtype=torch.float64).view(2, 1, 2)
    golden = [0.16834167809978684, 0.23389435271859785, 0.32345072026531974, 1.0]
    assert denoise(start, predict).flatten().tolist() == pytest.approx(golden, abs=1e-5)
    assert asked == [[t, t] for t in reversed(range(STEPS))]


def test_noise_that_is_told_exactly_is_taken_out_exactly():
    actions = torch.rand(3, 2, 2, dtype=torch.float64) * 2 - 1

    def truth(noisy, time):
        left = kept_variance()[time].view(-1, 1, 1)
        return (noisy - left.sqrt() * actions) / (1 - left).sqrt()

    assert torch.allclose(denoise(torch.randn(3, 2, 2, dtype=torch.float64), truth), actions, atol=1e-4)
    made = add_noise(actions, torch.randn(3, 2, 2, dtype=torch.float64), torch.tensor([0, 20, 49]))
    left = kept_variance()[made.time].view(-1, 1, 1)
    assert torch.allclose(made.actions, left.sqrt() * actions + (1 - left).sqrt() * made.noise)


def test_time_is_the_published_sinusoid():
    """sin and cos of t·10000^(−i/(D/2 − 1)), all sines first (spec 1.11)."""
    token = NoisyActions(8).time(torch.tensor([0, 7]))
    rates = [10_000 ** (-i / 3) for i in range(4)]
    expected = [torch.sin(torch.tensor([7 * r for r in rates])), torch.cos(torch.tensor([7 * r for r in rates]))]
    torch.testing.assert_close(token[1, 0], torch.cat(expected))
    assert token.shape == (2, 1, 8) and token[0, 0].tolist() == [0.0] * 4 + [1.0] * 4


def test_the_time_token_stands_last_at_the_place_before_text():
    """Its position is where it was published, after MEMORY, so that TEXT and ACTION move by one."""
    with_time, without = (Layout(4, 3, 5, 6, reserve=3, padded=True, time=time) for time in (1, 0))
    lengths = torch.tensor([5, 2])
    segments, positions = with_time.segments(lengths), with_time.positions(lengths)
    assert segments[:, -1].tolist() == [Segment.TIME] * 2 and with_time.length == without.length + 1
    assert positions[:, -1].tolist() == [9, 9], "BOS, 4 VISION, PROPRIO, 3 MEMORY before it"
    before = without.positions(lengths)
    assert torch.equal(positions[:, :9], before[:, :9])
    shown = segments[:, 9:-1] != Segment.PAD
    assert torch.equal(positions[:, 9:-1][shown], before[:, 9:][shown] + 1)
    assert with_time.action_read == without.action_read


@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
@pytest.mark.parametrize("backend", ["split", "dense"])
def test_under_the_guard_neither_noise_nor_time_reaches_the_memory(cell_with, interface, backend):
    policy = build_policy(cell_with({**DIFFUSION, "model.attention": backend}), interface)
    encoded, memory = random_frames(policy, 4), torch.randn(4, 4, 96)
    passes = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        noise, time = torch.randn(4, 2, 2, generator=generator), torch.randint(STEPS, (4,), generator=generator)
        made = add_noise(torch.rand(4, 2, 2, generator=generator), noise, time)
        passes.append(policy.predict_noise(encoded, memory, made))
    assert torch.equal(passes[0].memory, passes[1].memory)
    assert not torch.equal(passes[0].actions, passes[1].actions)
    assert leak_test(policy, encoded, {"tokens": memory}) == 0.0
    stepped = policy.step(encoded, memory, torch.randn(4, 2, 2))
    assert torch.equal(stepped.memory, passes[0].memory)
    full = build_policy(cell_with({**DIFFUSION, **dummy(4), "model.guard": "full"}), interface)
    assert leak_test(full, random_frames(full, 4), {"tokens": memory}) > 1e-3


@pytest.mark.parametrize("leaking", [Segment.ACTION, Segment.STOP, Segment.TIME])
def test_the_leak_test_sees_each_of_the_guarded_segments(cell_with, monkeypatch, leaking):
    """In one layer, where no segment can stand in for another."""
    from muvla.models import guard

    rest = tuple(segment for segment in guard.GUARDED_KEYS if segment is not leaking)
    monkeypatch.setattr(guard, "GUARDED_KEYS", rest)
    cell = cell_with({**DIFFUSION, "model.attention": "dense", "model.size.layers": 1})
    policy = build_policy(cell, PADDED_INTERFACE)
    with pytest.raises(NotAMeasurement) as info:
        leak_test(policy, random_frames(policy, 4), {"tokens": torch.randn(4, 4, 96)})
    assert info.value.field == "model.guard"


@pytest.mark.parametrize(
    ("field", "got"),
    [("data.labels", "masked"), ("data.tail", "mask"), ("model.guard", "full"), ("model.guard", "memory_only")],
)
def test_labels_that_must_not_be_seen_or_carried_are_refused(cell_with, field, got):
    """In training the slots hold them, noisy: a weight of 0 hides nothing, and an open guard writes them down."""
    with pytest.raises(MuvlaError) as info:
        cell_with(DIFFUSION | {field: got})
    assert (info.value.field, info.value.got) == (field, got)
    cell_with(DIFFUSION | {"model.chunk": 1, "data.tail": "mask"})  # at H = 1 there is no tail
    cell_with(DIFFUSION | dummy(4) | {"model.guard": "full"})  # nothing is carried


@pytest.mark.slow
def test_training_learns_to_denoise(store, cell_with):
    """The loss falls, and on frames that were trained on what is sampled is nearer to the labels than zeros are."""
    cell = cell_with(
        {
            **DIFFUSION,
            **no_memory(),
            "model.chunk": 1,
            "data.labels": "recorded",
            "budget.updates": 600,
            "budget.window": 2,
            "truncation": 2,
            "optimizer.warmup": 0.0,
        }
    )
    trainer = Trainer(cell, store)
    window = trainer.stream.window(2)
    # Eight frames, learned by heart, with other noise at every visit.
    visits = (dataclasses.replace(window, visit=window.visit + i) for i in itertools.count())
    trainer.stream.window = lambda _: next(visits)
    losses = [trainer.step()[0] for _ in range(600)]
    assert sum(losses[-50:]) < 0.4 * sum(losses[:50])
    with torch.no_grad():
        noise = torch.randn(8, 1, 2, generator=torch.Generator().manual_seed(0))
        actions = trainer.policy.step(trainer.encode(window), torch.zeros(8, 0, 96), noise).actions
    label = window.label.flatten(0, 1)
    assert (actions - label).abs().mean() < 0.8 * label.abs().mean()


@pytest.mark.slow
def test_an_episode_is_the_same_whatever_runs_beside_it(store, cell_with):
    """Its noise is keyed by its own seed and step."""
    trainer = Trainer(cell_with({**DIFFUSION, "budget.updates": 60, "budget.slots": 8}), store)
    for _ in range(60):  # untrained, 50 passes make much of the rounding of another batch shape
        trainer.step()
    outcomes = []
    for seeds in ([900, 901, 902, 903], [902, 903], [903, 900, 902, 901]):
        one = Protocol("denoised", 1, TaskConfig("RecallPosition3-v0"), episodes=4, slots=2)
        found = {}
        actor = PolicyActor(trainer.policy, trainer.statistics, one)
        rollout = Rollout(actor, lambda one=one: make_env(one.task, None))
        rollout.run(seeds, lambda outcome, found=found: found.update({outcome.seed: (outcome.info, outcome.error)}))
        outcomes.append(found)
    assert outcomes[0] == outcomes[2] and outcomes[1] == {seed: outcomes[0][seed] for seed in (902, 903)}


def noised_at(trainer, chunk, tick):
    window = trainer.stream.window(8)
    return trainer.add_label_noise(torch.zeros(4, chunk, 2), window, tick)


def test_cells_of_one_seed_share_noise_and_times(store, cell_with):
    """Also those of another H, where what both have is the same, and of another window."""
    cells = ((2, {}), (2, {"memory.m": 2, "truncation": 1}), (2, {"seed": 1}), (8, {"model.chunk": 8}))
    made = [noised_at(Trainer(cell_with({**DIFFUSION, **more}), store), H, 3) for H, more in cells]
    assert torch.equal(made[0].noise, made[1].noise) and torch.equal(made[0].time, made[1].time)
    assert not torch.equal(made[0].noise, made[2].noise)
    assert torch.equal(made[0].noise, made[3].noise[:, :2]) and torch.equal(made[0].time, made[3].time)
    trainer, short = (Trainer(cell_with({**DIFFUSION, "budget.window": w, "truncation": 2}), store) for w in (8, 2))
    window = trainer.stream.window(8)
    for i in range(4):
        part = short.stream.window(2)
        for t in range(2):
            one = trainer.add_label_noise(torch.zeros(4, 2, 2), window, 2 * i + t)
            other = short.add_label_noise(torch.zeros(4, 2, 2), part, t)
            assert torch.equal(one.noise, other.noise) and torch.equal(one.time, other.time)
    long = trainer.stream.window(150)
    many = [trainer.add_label_noise(torch.zeros(4, 2, 2), long, t) for t in range(150)]
    assert {int(t) for one in many for t in one.time} == set(range(STEPS))
    assert abs(torch.cat([one.noise for one in many]).std() - 1) < 0.05


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_released_diffusion_head_computes_the_published_pass(tmp_path):
    """A pass written out from the files' own names: noisy actions embedded one by one, TIME after PROPRIO, no guard."""
    path = released.write(tmp_path / "x", "oft", head="diffusion")
    directory = ReleasedCheckpoint(path, SIZE)
    assert directory.head == "diffusion" and directory.differences() == []
    policy = directory.load_policy()
    images = torch.randint(0, 256, (1, 2, 3, 28, 28), dtype=torch.uint8)
    proprio, actions, time = torch.rand(1, 7), torch.rand(1, 8, 7), torch.tensor([17])
    from dataclasses import replace

    policy.config = replace(policy.config, images="stored")
    with torch.no_grad():
        encoded = policy.encode(images, proprio, *policy.encode_text(["Touch the cube."]))
        ours = policy._predict(encoded, encoded.prefix.new_zeros(1, 0, 24), actions, time).actions
        prompt = "In: What action should the robot take to touch the cube.?\nOut:"
        theirs, _ = published_forward(path, images, proprio, prompt, noisy=(actions, time))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def unknown_head(path):
    file = next(path.glob("action_head--*"))
    torch.save({"module.flow.fc1.weight": torch.zeros(2)}, file)


def no_projector(path):
    next(path.glob("noisy_action_projector--*")).unlink()


def a_projector_too_many(path):
    released.torch.save(released.noisy_tensors(torch.zeros), path / "noisy_action_projector--150000_checkpoint.pt")


@pytest.mark.parametrize(
    ("head", "spoil", "field", "got"),
    [
        ("diffusion", unknown_head, "action_head--150000_checkpoint.pt", "flow.fc1.weight"),
        ("diffusion", no_projector, "x", "noisy_action_projector--"),
        ("l1", a_projector_too_many, "x", "noisy_action_projector--150000_checkpoint.pt"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, head, spoil, field, got):
    path = released.write(tmp_path / "x", "oft", head=head)
    spoil(path)
    with refused_at(f"/{field}", got):
        ReleasedCheckpoint(path, SIZE).load_policy()
