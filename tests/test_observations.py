"""What a policy is shown: which cameras, the episode's first image, proprio; in training as in evaluation."""

import numpy as np
import pytest
import torch

from helpers.errors import refused
from helpers.policies import PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.checkpoints.native import load, save
from muvla.config import TaskConfig
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.models.policy import Policy
from muvla.models.sequence import Segment
from muvla.training.resume import make_checkpoint
from muvla.training.trainer import Trainer

NUMBERS = {"None": [0, 1], "1": [0], "[1]": [1], "['wrist']": [1], "['wrist', 'base']": [1, 0]}
PROTOCOL = Protocol("shown", 1, TaskConfig("RecallPosition3-v0"), episodes=2, slots=1)


@pytest.mark.parametrize("first_image", [False, True])
@pytest.mark.parametrize("cameras", [None, 1, [1], ["wrist"], ["wrist", "base"]])
def test_training_shows_the_chosen_images(store, cell_with, cameras, first_image):
    trainer = Trainer(cell_with({"data.cameras": cameras, "data.first_image": first_image}), store)
    window = trainer.stream.window(8)
    numbers = NUMBERS[str(cameras)]
    given = torch.from_numpy(store["images"][window.frame]).movedim(-1, -3)[:, :, numbers]
    chosen = given.shape[2]
    assert trainer.interface.cameras == window.images.shape[2] == chosen + first_image
    assert torch.equal(window.images[:, :, :chosen], given)
    if first_image:
        first = store["images"][store.starts[window.episode]][:, :, numbers[0]]
        assert torch.equal(window.images[:, :, chosen], torch.from_numpy(first).movedim(-1, -3))
        assert not torch.equal(window.images[:, :, chosen], window.images[:, :, 0])


@pytest.mark.parametrize(
    ("cameras", "first_image"), [(None, False), (1, False), (1, True), (None, True), (["wrist"], True)]
)
def test_evaluation_shows_what_training_showed(store, cell_with, monkeypatch, cameras, first_image):
    """Episode by episode, frame by frame: what an environment gave, chosen like the training's."""
    trainer = Trainer(cell_with({"data.cameras": cameras, "data.first_image": first_image}), store)
    shown, encode = [], Policy.encode
    monkeypatch.setattr(
        Policy, "encode", lambda self, images, *more: (shown.append(images), encode(self, images, *more))[1]
    )
    from muvla.envs.registry import open_env

    given = []

    class Watched(type(open_env(PROTOCOL.task, 32).unwrapped)):
        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            given.append([observation["images"]])
            return observation, info

        def step(self, action):
            step = super().step(action)
            given[-1].append(step[0]["images"])
            return step

    actor = PolicyActor(trainer.policy, trainer.statistics, PROTOCOL)
    rollout = Rollout(actor, lambda: Watched(PROTOCOL.task.name, image_size=32))
    rollout.run([7, 8], lambda _: None)
    expected = []
    for frames in given:
        for frame in frames[:-1]:  # after the last step nothing is asked
            numbers = NUMBERS[str(cameras)]
            first = [frames[0][numbers[:1]]] if first_image else []
            expected.append(torch.from_numpy(np.concatenate([frame[numbers], *first])).movedim(-1, -3))
    assert len(shown) == len(expected) and len(given) == 2
    assert all(torch.equal(one[0], other) for one, other in zip(shown, expected, strict=True))


def test_a_robot_with_other_cameras_is_refused(store, cell_with):
    """One that was shown all of its robot's cameras, or one of two, is not shown those of a robot with three."""
    from gymnasium import spaces

    from muvla.envs.workers import LocalEnv
    from muvla.evaluation.checks import require_fit

    class Robot:
        observation_space = spaces.Dict(
            images=spaces.Box(0, 255, (3, 32, 32, 3), "uint8"), proprio=spaces.Box(-1, 1, (2,))
        )
        action_space = spaces.Box(-1, 1, (2,))

    for cameras in (None, 1):
        with refused("protocol.task"):
            require_fit(Trainer(cell_with({"data.cameras": cameras}), store).policy, LocalEnv(Robot()))


@pytest.mark.parametrize(
    "cameras", [2, 3, [2], ["front"], [0, 1], ["base", "wrist"], ["base", 0], [0, 0], [], [""], 0, [-1]]
)
def test_a_choice_of_cameras_that_the_robot_lacks_is_one_error(store, cell_with, cameras):
    with refused("data.cameras"):
        Trainer(cell_with({"data.cameras": cameras}), store)


@pytest.mark.parametrize(
    "change", [{"data.cameras": ["wrist"]}, {"data.instruction": "with_target", "model.prompt_tokens": 24}], ids=str
)
def test_a_checkpoint_keeps_what_its_policy_is_shown(store, cell_with, tmp_path, change):
    trainer = Trainer(cell_with(change), store)
    saved = load(save(tmp_path, make_checkpoint(trainer), keep=1))
    assert saved.interface == trainer.interface != Trainer(cell_with(), store).interface


def test_without_proprio_nothing_of_it_is_left(cell_with):
    """One token less, no parameter, and no proprio changes an action; the head still reads from the last TEXT token."""
    told, untold = (build_policy(cell_with({"model.proprio": p}), PLAIN_INTERFACE) for p in (True, False))
    assert untold.layout().length == told.layout().length - 1
    segments = untold.layout().segments(torch.tensor([PLAIN_INTERFACE.text]))[0].tolist()
    assert Segment.PROPRIO not in segments
    assert segments[untold.layout().action_read.start] == Segment.TEXT
    assert segments[untold.layout().memory_slice] == [Segment.MEMORY] * 4
    assert not [n for n, _ in untold.named_parameters() if n.startswith("proprio.")]
    for policy, differs in ((told, True), (untold, False)):
        actions = []
        for shift in (0.0, 1.0):
            generator = torch.Generator().manual_seed(0)
            images = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8, generator=generator)
            ids, lengths = policy.encode_text(["Touch the marked disc."] * 2)
            encoded = policy.encode(images, torch.full((2, 2), shift), ids, lengths)
            actions.append(policy.step(encoded, torch.zeros(2, 4, 96)).actions)
        assert torch.equal(*actions) != differs
    shared = dict(untold.named_parameters())
    assert all(torch.equal(p, shared[n]) for n, p in told.named_parameters() if n in shared)
    assert random_frames(untold, 2).prefix.shape[1] == random_frames(told, 2).prefix.shape[1] - 1
