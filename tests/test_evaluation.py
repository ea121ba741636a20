"""Rollouts and rows."""

import json
from contextlib import nullcontext
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from helpers.errors import refused
from muvla.config import dummy, no_memory, tbptt
from muvla.envs.registry import make_env, open_env
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.evaluate import EvaluationRequest, evaluate
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.records import OPTIONAL_FIELDS, EpisodeRow, RowFile, read_rows, result_id, summarise
from muvla.evaluation.rollout import Rollout
from muvla.interventions import EXAMPLES, parse_intervention
from muvla.interventions.base import Intervention
from muvla.recurrence import Recurrence
from muvla.training.trainer import Trainer

BASE = get_protocol("recall-position3-rh@1")
SHORT = replace(BASE, name="short", episodes=12, slots=5)
KINDS = {name: parse_intervention(name) for name in EXAMPLES.values()}
# On MEMORY tokens, which have no times.
ALONE = sorted(
    name for name, kind in KINDS.items() if kind.donor is None and not kind.on_times and not kind.on_perception
)


def outcomes(trainer, protocol, kind=None, seeds=None):
    found = {}
    actor = PolicyActor(trainer.policy, trainer.statistics, protocol, kind)
    rollout = Rollout(actor, lambda: make_env(protocol.task, protocol.image_size))
    rollout.run(seeds or range(protocol.seed, protocol.seed + protocol.episodes), lambda o: found.update({o.seed: o}))
    return found, actor


def test_every_episode_once(trained):
    found, actor = outcomes(trained, SHORT)
    assert sorted(found) == list(range(SHORT.seed, SHORT.seed + 12))
    steps = [o.info["steps"] for o in found.values()]
    assert max(steps) <= actor.ticks <= sum(steps)


@pytest.mark.parametrize("fault", ["a write is lost", "the model is called twice"])
def test_model_calls_memory_writes_and_steps_are_held_against_each_other(trained, tmp_path, monkeypatch, fault):
    """Counted in three places: the policy, the recurrence by slot, and the environment's steps."""
    if fault == "a write is lost":
        carry = Recurrence._carry

        def forgetful(self, state, active):
            if self.writes[0] < 2:
                carry(self, state, active)

        monkeypatch.setattr(Recurrence, "_carry", forgetful)
    else:
        step = type(trained.policy).step
        monkeypatch.setattr(type(trained.policy), "step", lambda *a, **k: (step(*a, **k), step(*a, **k))[1])
    with pytest.raises(NotAMeasurement) as info:
        evaluated(trained, tmp_path)
    assert info.value.field == "memory"
    assert ("writes in" if fault == "a write is lost" else "2 model calls") in info.value.got


@pytest.mark.parametrize("name", [None, *ALONE])
def test_rows_do_not_depend_on_order_or_neighbours(trained, name):
    """At one batch shape, bit for bit, under every intervention: the same episodes in another order, other company."""
    kind, one = parse_intervention(name), replace(SHORT, episodes=7, slots=3)
    forward, _ = outcomes(trained, one, kind)
    backward, _ = outcomes(trained, one, kind, list(range(one.seed + 6, one.seed - 1, -1)))
    few, _ = outcomes(trained, one, kind, [one.seed + 3, one.seed + 5])
    for seed, outcome in few.items():
        assert outcome.info == forward[seed].info
    assert {s: o.info for s, o in forward.items()} == {s: o.info for s, o in backward.items()}


def test_an_episode_is_what_the_loop_by_hand_gives(trained):
    """One episode, one slot, written out: reset, normalise, query, first action, step."""
    one = replace(SHORT, slots=1, episodes=1)
    found, _ = outcomes(trained, one)
    env, policy, statistics = make_env(one.task), trained.policy, trained.statistics
    observation, info = env.reset(seed=one.seed)
    tokens, steps, done = policy.memory.initial[None], 0, False
    with torch.no_grad():
        while not done:
            images = torch.from_numpy(observation["images"]).permute(0, 3, 1, 2)[None]
            proprio = torch.from_numpy(statistics.normalise_proprio(observation["proprio"][None]))
            encoded = policy.encode(images, proprio, *policy.encode_text([info["instruction"]]))
            output = policy.step(encoded, tokens)
            tokens = output.memory
            action = statistics.unnormalise_action(output.actions[0].numpy())[0]
            observation, _, terminated, truncated, info = env.step(np.clip(action, -1, 1))
            steps, done = steps + 1, terminated or truncated
    assert (found[one.seed].info["steps"], found[one.seed].info["choice"]) == (steps, info["choice"])


def test_regimes_bite(trained):
    """`open_loop(h)` queries every h-th step; with tick `call` the memory lives on queries only."""
    ticks = {}
    for name, changes in {
        "receding": {},
        "open4 call": {"regime": "open_loop", "h": 4, "tick": "call"},
        "open4 env_step": {"regime": "open_loop", "h": 4, "tick": "env_step"},
    }.items():
        found, actor = outcomes(trained, replace(SHORT, slots=1, episodes=3, **changes))
        steps = [o.info["steps"] for o in found.values()]
        ticks[name] = actor.ticks
        assert actor.ticks == (sum(-(-s // 4) for s in steps) if "call" in name else sum(steps))
    assert ticks["open4 call"] < ticks["receding"]


def test_a_chunk_longer_than_the_head_is_refused(trained):
    with pytest.raises(MuvlaError) as info:
        outcomes(trained, replace(SHORT, regime="open_loop", h=8))
    assert info.value.field == "protocol.h"


def test_step_limit_and_break_at_success_bite(trained):
    free, _ = outcomes(trained, SHORT)
    found, _ = outcomes(trained, replace(SHORT, step_limit=6))
    longer = {seed for seed, o in free.items() if o.info["steps"] > 6}
    assert longer and {seed: o.info["steps"] for seed, o in found.items() if seed in longer} == dict.fromkeys(longer, 6)

    class Sticky(type(make_env(SHORT.task))):
        """Success at the second step, lost again at the third, and no end before the fifth."""

        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            info["success"] = self.t == 2
            return observation, reward, False, self.t >= 5, info

    def run(break_at_success):
        rows = []
        one = replace(SHORT, slots=1, episodes=1, break_at_success=break_at_success)
        actor = PolicyActor(trained.policy, trained.statistics, one)
        Rollout(actor, lambda: Sticky(one.task.name)).run([1], rows.append)
        return rows[0].info

    assert run(True)["steps"] == 2 and run(True)["success_at_end"]
    assert run(False)["steps"] == 5 and run(False)["success_once"] and not run(False)["success_at_end"]
    assert run(False)["first_success_step"] == 2


def evaluated(trainer, folder, protocol=SHORT, kind=None, env_factory=open_env, **changes):
    request = EvaluationRequest(trainer.policy, trainer.statistics, protocol, kind, "abc", 0, (range(0, 24),))
    context = EvaluationContext(lambda environment: nullcontext("p"), env_factory=env_factory)
    return evaluate(replace(request, **changes), folder, context)


def test_rows_have_every_field_and_seeds_count_up(trained, tmp_path):
    file = evaluated(trained, tmp_path)
    assert len(file.rows) == 12 and {r.seed for r in file.rows} == set(range(SHORT.seed, SHORT.seed + 12))
    for line in file.path.read_text().splitlines():
        row = json.loads(line)
        assert set(row) == {f.name for f in fields(EpisodeRow)} - set(OPTIONAL_FIELDS)
        unset = {k for k, v in row.items() if v is None}
        assert unset <= {"error", "first_success_step", "fired", "donor_seed", "donor_target"}
        assert row["protocol"] == "short@1" and row["protocol_hash"] == SHORT.hash and row["group"] == "recall"
        assert row["first_decision_step"] == row["cue_length"] + row["delay_length"]
        assert row["success_once"] == (row["choice"] == row["target"])


def test_an_evaluation_continues_mid_cell(trained, tmp_path):
    whole = evaluated(trained, tmp_path / "whole")
    cut = tmp_path / "cut" / "rows" / whole.path.name
    cut.parent.mkdir(parents=True)
    lines = whole.path.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[:5]) + lines[5][:40])  # killed while writing the sixth row
    file = evaluated(trained, tmp_path / "cut")
    outcome = lambda f: {r.seed: replace(r, seconds=0, environment_seconds=0) for r in f.rows}  # noqa: E731
    assert (
        outcome(file)
        == outcome(whole)
        == {r.seed: replace(r, seconds=0, environment_seconds=0) for r in read_rows(file.path)}
    )
    assert evaluated(trained, tmp_path / "cut").rows == file.rows, "nothing is run again"


def test_an_exception_is_an_error_row_and_never_a_failure(trained, tmp_path):
    class Fragile(type(make_env(SHORT.task))):
        def reset(self, *, seed=None, options=None):
            if seed == SHORT.seed + 1:
                raise RuntimeError("no such scene")
            return super().reset(seed=seed)

        def step(self, action):
            if self.target == 0 and self.t == 2:
                raise ValueError("the physics exploded")
            return super().step(action)

    file = evaluated(trained, tmp_path, env_factory=lambda task, size: Fragile(task.name))
    errors = [r for r in file.rows if r.error]
    assert len(file.rows) == 12 and len(errors) > 1
    assert all(r.success_once is None and r.choice is None and r.steps is None for r in errors)
    assert "RuntimeError: no such scene" in next(r.error for r in errors if r.seed == SHORT.seed + 1)
    summary = summarise(file.rows)
    assert summary.measured == 12 - len(errors) and summary.errors == len(errors)
    assert len(evaluated(trained, tmp_path).rows) == 12, "nothing is retried silently"
    again = evaluated(trained, tmp_path, retry_errors=True)
    assert len(again.rows) == 12 + len(errors), "the old rows stay"
    last = {r.seed: r for r in again.rows}
    assert all(r.error is None for r in last.values())
    assert {r.attempt for r in last.values()} == {1, 2}


def test_a_broken_installation_is_one_error_and_not_a_file_of_error_rows(trained, tmp_path):
    class Unrenderable(type(make_env(SHORT.task))):
        def reset(self, *, seed=None, options=None):
            raise MuvlaError("renderer", got="nothing", expected="a renderer", remedy="install one")

    with pytest.raises(MuvlaError) as info:
        evaluated(trained, tmp_path, env_factory=lambda task, size: Unrenderable(task.name))
    assert info.value.field == "renderer"
    assert not list(tmp_path.iterdir())


def test_training_seeds_are_never_evaluated(trained, tmp_path):
    with pytest.raises(MuvlaError) as info:
        evaluated(trained, tmp_path, training_episodes=(range(5), range(SHORT.seed + 11, SHORT.seed + 30)))
    assert info.value.field == "protocol.seed"


def test_memory_that_should_move_and_does_not_is_no_measurement(trained, tmp_path):
    stuck = Intervention("noise_unit", "after_write", lambda s, c: c.history[0] if c.history else s, "moves")
    with pytest.raises(NotAMeasurement) as info:
        evaluated(trained, tmp_path, kind=stuck)
    assert (info.value.field, info.value.got) == ("memory", "frozen")
    assert not list(tmp_path.glob("rows/*.jsonl")), "its rows are set aside"
    wobbly = Intervention("freeze_first", "after_write", lambda s, c: s, "freezes")
    with pytest.raises(NotAMeasurement) as info:
        evaluated(trained, tmp_path, kind=wobbly)
    assert (info.value.field, info.value.got) == ("memory", "moved")


@pytest.mark.parametrize("memory", [tbptt(8, 4), dummy(4)], ids=["tokens", "dummy"])
def test_every_intervention_does_to_the_memory_what_it_declares(store, cell_with, memory, tmp_path):
    """No false alarm either, and none for one that keeps the memory moving as it does (the example of
    CONTRIBUTING.md)."""
    trainer = Trainer(cell_with({**memory, "model.chunk": 4}), store)
    negate = Intervention("negate", "before_read", lambda s, c: {key: -leaf for key, leaf in s.items()}, "keeps")
    one = replace(SHORT, episodes=5, slots=2)
    for kind in (*map(parse_intervention, ALONE), negate):
        assert len(evaluated(trainer, tmp_path, one, kind).rows) == 5


def test_a_policy_that_emits_nan_is_no_measurement(trained, tmp_path, store, cell_with):
    trainer = Trainer(cell_with({"model.chunk": 4}), store)
    with torch.no_grad():
        trainer.policy.head.fc_out.bias.fill_(float("nan"))
    with refused("action", NotAMeasurement):
        evaluated(trainer, tmp_path)
    with torch.no_grad():
        trainer.policy.head.fc_out.bias.fill_(0)
        trainer.policy.memory.initial.fill_(float("nan"))
    with pytest.raises(NotAMeasurement):
        evaluated(trainer, tmp_path)


def test_a_policy_that_emits_another_shape_is_no_measurement(trained, tmp_path, monkeypatch):
    tick = Recurrence.tick

    def short(self, *arguments):
        output, tokens = tick(self, *arguments)
        return replace(output, actions=output.actions[..., :1]), tokens

    monkeypatch.setattr(Recurrence, "tick", short)
    with pytest.raises(NotAMeasurement) as info:
        evaluated(trained, tmp_path)
    assert info.value.field == "action"


def test_the_leak_test_runs_in_every_evaluation(trained, tmp_path, monkeypatch):
    from muvla.evaluation import policy_actor

    calls = []
    monkeypatch.setattr(policy_actor, "leak_test", lambda *a: calls.append(1) or 0.0)
    evaluated(trained, tmp_path)
    evaluated(trained, tmp_path, kind=parse_intervention("zero"))
    assert len(calls) == 2


def test_result_ids_separate_training_protocol_and_intervention():
    ids = {result_id(t, p, i) for t in "ab" for p in (BASE, SHORT) for i in ("none", "zero")}
    assert len(ids) == 8


def test_a_row_file_of_another_version_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"seed": 1}\n')
    with refused(f"{tmp_path / 'x.jsonl'}:1: result"):
        RowFile(tmp_path, "x")


@pytest.mark.parametrize("change", [no_memory(), dummy(4), tbptt(8, 4)], ids=["none", "dummy", "tokens"])
def test_a_memoryless_policy_is_at_chance_by_construction(store, cell_with, change, tmp_path):
    """Not a success rate: whatever was learned, a policy without memory makes the same first decision for every target,
    so over the targets of one scene it is right exactly once."""
    trainer = Trainer(cell_with({**change, "budget.updates": 5}), store)
    for _ in range(5):
        trainer.step()
    env = make_env(SHORT.task)
    first_actions = []
    for target in range(3):
        _, info = env.reset(seed=1)
        env.drawn = replace(env.drawn, answer=(target,))
        observation = env._observation()  # the first cue frame shows the target that was set
        tokens = trainer.policy.memory.init_state(1)
        with torch.no_grad():
            while True:
                images = torch.from_numpy(observation["images"]).permute(0, 3, 1, 2)[None]
                proprio = torch.from_numpy(trainer.statistics.normalise_proprio(observation["proprio"][None]))
                encoded = trainer.policy.encode(images, proprio, *trainer.policy.encode_text([info["instruction"]]))
                output = trainer.policy.step(encoded, trainer.policy.memory.read(tokens).tokens)
                tokens = trainer.policy.memory.write(tokens, output.taps)
                if info["phase"] == 3:
                    first_actions.append(output.actions)
                    break
                observation, _, _, _, info = env.step(np.zeros(2))
    alike = torch.equal(first_actions[0], first_actions[1]) and torch.equal(first_actions[0], first_actions[2])
    assert alike == (not trainer.policy.memory.recurs)
