"""Our policies behind slots: batched answers equal those of a session alone, bit for bit."""

import asyncio

import numpy as np
import pytest

from muvla.checkpoints.build import build_policy, get_prompts
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.serving.observation import Observed
from muvla.serving.refusal import Refused
from muvla.serving.regime import Regime
from muvla.serving.sessions import Limits, Sessions
from muvla.serving.slots import PolicySlots
from muvla.training.interface import get_interface

COUNT, TICKS = 8, 4
MECHANISMS = {
    "tokens": {},
    "bank": {"memory.kind": "bank"},
    "diffusion": {"model.head": "diffusion", "data.tail": "repeat"},
}


@pytest.fixture(scope="module")
def slots_with(store, cell_with):
    def build(changes, batch=None):
        cell = cell_with(changes)
        policy = build_policy(cell, get_interface(store, get_prompts(cell), cell))
        return PolicySlots(policy, Statistics.from_store(store), COUNT, batch=batch)

    return build


def frames_of(number, needs, side=32):
    rng = np.random.default_rng(number)
    shape = (needs.cameras, side, side, 3)
    return [
        Observed(
            rng.integers(0, 256, shape, dtype=np.uint8),
            rng.uniform(-1, 1, needs.proprio).astype(np.float32),
            "Touch the marked disc.",
        )
        for _ in range(TICKS)
    ]


def play(slots, numbers, pauses=True):
    """Number → actions of an episode, all at once, with random starts."""

    async def episode(sessions, number):
        rng = np.random.default_rng(number)
        session = sessions.open(str(number))
        await asyncio.sleep(rng.uniform(0, 0.1) if pauses else 0)
        await sessions.begin(session, seed=number)
        answers = [(await sessions.act(session, observed)).actions for observed in frames_of(number, slots.needs)]
        sessions.close(session)
        return number, np.concatenate(answers)

    async def run():
        sessions = Sessions(slots, Regime(), Limits(window=0.002))
        sessions.start()
        try:
            return dict(await asyncio.gather(*(episode(sessions, number) for number in numbers))), sessions
        finally:
            await sessions.stop()

    return asyncio.run(run())


@pytest.mark.parametrize("mechanism", ["tokens", "bank", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_eight_sessions_at_random_starts_equal_a_session_alone_bitwise(slots_with, mechanism):
    slots = slots_with(MECHANISMS[mechanism])
    together, sessions = play(slots, range(COUNT))
    assert max(sessions.metrics.batches) > 1
    for number in (0, 7):
        alone, _ = play(slots, [number], pauses=False)
        assert np.array_equal(together[number], alone[number])


@pytest.mark.parametrize("mechanism", ["tokens", "bank"])
def test_passes_of_few_rows_share_slots_and_equal_a_session_alone_bitwise(slots_with, mechanism, monkeypatch):
    """Eight slots in passes of three rows: a slot has another row at every tick."""
    slots, rows = slots_with(MECHANISMS[mechanism], batch=3), []
    act = slots._actor.act
    monkeypatch.setattr(slots._actor, "act", lambda episodes, ready: rows.append(len(episodes)) or act(episodes, ready))
    together, sessions = play(slots, range(COUNT))
    assert set(rows) == {3} and len(rows) > len(sessions.metrics.batches)
    for number in (0, 7):
        alone, _ = play(slots, [number], pauses=False)
        assert np.array_equal(together[number], alone[number])
    assert slots.config()["batch"] == 3


@pytest.mark.parametrize("batch", [0, COUNT + 1])
def test_a_pass_has_at_least_a_row_and_no_more_than_the_slots(slots_with, batch):
    with pytest.raises(MuvlaError) as info:
        slots_with({}, batch=batch)
    assert info.value.field == "--batch"


def test_frames_of_other_sizes_share_no_pass_and_change_no_answer(slots_with):
    slots = slots_with({"model.images": "resized"})
    needs = slots.needs
    small, large = frames_of(1, needs), frames_of(2, needs, side=48)

    def answers(*episodes):
        for slot in range(len(episodes)):
            slots.start(slot, seed=slot)
        answers_of = []
        for step in range(TICKS):
            frames = {slot: episode[step] for slot, episode in enumerate(episodes) if episode}
            answers_of.append(slots.tick(frames, dict.fromkeys(frames, step)))
        return answers_of

    both, alone = answers(small, large), answers(small, None)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(both, alone, strict=True))


def test_a_pass_that_fails_is_repeated_for_each_frame_and_moves_no_memory(slots_with, monkeypatch):
    slots = slots_with({})
    a, b = frames_of(1, slots.needs), frames_of(2, slots.needs)
    slots.start(0, 0)
    slots.start(1, 0)
    act, broken = slots._actor.act, b[1].images

    def sometimes(episodes, ready):
        if any(episode.observation["images"] is broken for episode in ready):
            raise RuntimeError("no memory left")
        return act(episodes, ready)

    monkeypatch.setattr(slots._actor, "act", sometimes)
    first = slots.tick({0: a[0], 1: b[0]}, {0: 0, 1: 0})
    second = slots.tick({0: a[1], 1: b[1]}, {0: 1, 1: 1})
    assert isinstance(second[1], RuntimeError)
    third = slots.tick({0: a[2], 1: b[2]}, {0: 2, 1: 1})
    monkeypatch.undo()
    slots.start(0, 0)
    slots.start(1, 0)
    for got, frames, step in ((first[0], a[0], 0), (second[0], a[1], 1), (third[0], a[2], 2)):
        assert np.array_equal(got, slots.tick({0: frames}, {0: step})[0])
    for got, frames, step in ((first[1], b[0], 0), (third[1], b[2], 1)):
        assert np.array_equal(got, slots.tick({1: frames}, {1: step})[1])


def test_a_memory_that_is_not_finite_breaks_its_own_session_until_the_next_episode(slots_with):
    slots = slots_with({})
    a, b = frames_of(1, slots.needs), frames_of(2, slots.needs)
    slots.start(0, 0)
    slots.start(1, 0)
    slots.tick({0: a[0], 1: b[0]}, {0: 0, 1: 0})
    for leaf in slots._state.values():
        leaf[1] = float("nan")
    got = slots.tick({0: a[1], 1: b[1]}, {0: 1, 1: 1})
    assert isinstance(got[0], np.ndarray) and isinstance(got[1], Refused)
    slots.start(1, 0)
    assert isinstance(slots.tick({1: b[0]}, {1: 0})[1], np.ndarray)


def test_config_names_everything_that_decides_an_answer(slots_with):
    config = slots_with({}).config()
    names = {
        "slots",
        "recurrent",
        "memory",
        "cameras",
        "images",
        "image_size",
        "state",
        "action",
        "chunk",
        "statistics",
    }
    assert names <= config.keys() and config["recurrent"]
    assert not slots_with({"memory.kind": "none", "memory.m": 0}).recurrent
