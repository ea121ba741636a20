"""Probes that change the task: every knob bites on what it names, and on nothing else; what does not fit is refused."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from helpers.errors import refused
from helpers.paths import TESTS
from helpers.probes import GRIDS
from muvla.config import TaskConfig
from muvla.config.serialization import content_hash
from muvla.envs.colours import COLOURS
from muvla.envs.registry import make_env, step_limit, task_info
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import declared_protocols, get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import chance
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.probes.chunk_length import chunk_lengths
from muvla.probes.palette import NEW, palettes
from muvla.probes.phase_length import phase_lengths
from muvla.probes.registry import get_grid
from muvla.probes.visual_shift import shifts
from muvla.training.trainer import Trainer
from sweeps.study import Study

GOLDEN = TESTS / "golden" / "probes.json"
POSITION, COLOR = get_protocol("recall-position3-rh@1"), get_protocol("recall-color5-rh@1")
REMEMBER = get_protocol("mikasa-remember-color3-rh@2")
SHIFTS = ("camera", "light", "distractor")


@pytest.mark.parametrize("name", GRIDS)
def test_an_edited_grid_needs_a_new_version(name):
    """The committed hashes say what each point of each id means; an edited base is refused elsewhere."""
    golden, now = json.loads(GOLDEN.read_text(encoding="utf-8")), {}
    for base in (POSITION, COLOR, REMEMBER):
        made = get_grid(name)(base)
        points = [[p.protocol.id, p.protocol.hash, p.intervention, list(map(list, p.coordinates))] for p in made.points]
        now[f"{made.id} of {base.id}"] = content_hash(points)
    known = {key: value for key, value in golden.items() if key.startswith(f"{name}@")}
    assert now == known, "raise VERSION of the probe instead of editing it, and commit the new hashes"


@pytest.mark.parametrize("base", [POSITION, COLOR, REMEMBER], ids=lambda base: base.id)
def test_one_id_is_one_protocol_and_none_is_a_published_one(base):
    seen = {}
    for name in GRIDS:
        for point in get_grid(name)(base).points:
            assert seen.setdefault(point.protocol.id, point.protocol) == point.protocol
            assert point.protocol == base or point.protocol.id not in declared_protocols()
            same = ("seed", "episodes", "slots", "image_size", "break_at_success")
            assert all(getattr(point.protocol, field) == getattr(base, field) for field in same)
    ids = {point.protocol.id for point in phase_lengths(REMEMBER).points}
    assert "mikasa-remember-color3-rh-v2+phase10@1" in ids, "the base's version, where it is not the first"


def test_an_unknown_grid_names_the_known_ones():
    assert get_grid("shift@1") is shifts
    with pytest.raises(MuvlaError) as info:
        get_grid("phase")
    assert info.value.field == "probe"


# --- phase length -----------------------------------------------------------------------------------------------------


def test_cue_and_delay_are_n_steps_and_the_control_has_the_limit_alone():
    made = phase_lengths(POSITION, (3, 20))
    assert [dict(point.coordinates) for point in made.points] == [
        {"N": 3, "changed": "phases", "step_limit": 16},
        {"N": 3, "changed": "step limit only", "step_limit": 16},
        {"N": 20, "changed": "phases", "step_limit": 50},
        {"N": 20, "changed": "step limit only", "step_limit": 50},
    ]
    assert [point.protocol.id.removeprefix("recall-position3-rh+") for point in made.points] == [
        "phase3@1",
        "limit16@1",
        "phase20@1",
        "limit50@1",
    ]
    for point in made.points:
        env = make_env(point.protocol.task)
        lengths, steps, over = set(), 0, False
        for seed in range(20):
            _, info = env.reset(seed=seed)
            lengths.add((info["cue_length"], info["delay_length"]))
        while not over:  # nothing is touched
            *_, over, info = env.step(np.zeros(2))
            steps += 1
        where = dict(point.coordinates)
        assert steps == where["step_limit"] == step_limit(point.protocol.task)
        if where["changed"] == "phases":
            assert lengths == {(where["N"], where["N"])}
        else:
            assert lengths == {(cue, delay) for cue in (1, 2, 3) for delay in (1, 2)}
        assert chance(point.protocol) == pytest.approx(1 / 3)


def test_the_phases_that_are_varied_are_chosen():
    (fixed, _) = phase_lengths(POSITION, (7,), phases=("delay",)).points
    assert (fixed.protocol.task.cue, fixed.protocol.task.delay) == (None, (7, 7))
    assert fixed.protocol.id == "recall-position3-rh+delay7@1" and fixed.protocol.task.step_limit == 3 + 7 + 10
    (fixed, _) = phase_lengths(POSITION, (7,), phases=("cue",)).points
    assert (fixed.protocol.task.cue, fixed.protocol.task.delay) == ((7, 7), None)


def test_remember_has_as_many_steps_for_the_decision_as_published():
    """2N + 15 beyond the published phases (μVLA spec 7); up to those the control is the base itself."""
    made = {(p.coordinates[0][1], p.coordinates[1][1]): p.protocol for p in phase_lengths(REMEMBER).points}
    for n in (10, 20, 50, 100):
        assert made[n, "phases"].task.step_limit == made[n, "step limit only"].task.step_limit == 2 * n + 15
    assert made[3, "step limit only"] == made[5, "step limit only"] == REMEMBER
    assert made[3, "phases"].task.step_limit == 25
    assert phase_lengths(replace(REMEMBER, task=TaskConfig("RememberShape5-VLA-v0"))).points


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"step_limit": 25}, "protocol.step_limit"),
        ({"task": TaskConfig("RecallPosition3-v0", step_limit=25)}, "protocol.task.step_limit"),
    ],
)
def test_n_beyond_the_bases_own_step_limit_is_refused(limits, field):
    base = replace(POSITION, name="short", **limits)
    assert phase_lengths(base, (5,)).points[0].protocol.id == "short+phase5@1"
    with pytest.raises(MuvlaError) as info:
        phase_lengths(base, (5, 10))
    assert (info.value.field, info.value.got) == (field, 25)


@pytest.mark.parametrize(
    ("task", "make", "field"),
    [
        ("ShellGamePush-VLA-v0", phase_lengths, "task.delay"),
        ("TakeItBack-VLA-v0", phase_lengths, "task.cue"),
        ("RememberShape3-VLA-v0", palettes, "task.palette"),
        ("libero_goal-0", shifts, "task.shift"),
    ],
)
def test_a_task_without_the_part_is_refused(task, make, field):
    with pytest.raises(MuvlaError) as info:
        make(replace(POSITION, name="other", task=TaskConfig(task)))
    assert info.value.field == f"probe of other@1: {field}" and info.value.got == task
    with pytest.raises(MuvlaError) as info:
        TaskConfig("RecallPosition3-v0", step_limit=0)
    assert info.value.field == "task.step_limit"


def test_the_step_limit_that_is_told_is_the_environments():
    for task in (
        TaskConfig("RecallColor3-v0"),
        TaskConfig("RecallColor3-v0", cue=(4, 9), blank=(0, 2)),
        TaskConfig("RecallColor3-v0", step_limit=40),
    ):
        assert step_limit(task) == make_env(task).step_limit
    assert step_limit(TaskConfig("libero_goal-0")) == 300
    assert step_limit(TaskConfig("RememberColor3-VLA-v0", cue=(1, 9))) == 29


# --- chunk length -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainer(cell_with, store):
    """H = 2; untrained, it acts all the same."""
    return Trainer(cell_with({"model.chunk": 2}), store)


class Recorder(type(make_env(POSITION.task))):
    """Every action that reaches it; nothing ends it before the step limit."""

    actions: list

    def reset(self, **kwargs):
        self.actions = []
        return super().reset(**kwargs)

    def step(self, action):
        self.actions.append(action.tolist())
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info | {"success": False}


def acted(trainer, one, kind="none"):
    """The actions (steps, A) of one episode, and the ticks that it took."""
    one = replace(one, episodes=1, slots=1)
    env = Recorder(one.task.name)
    actor = PolicyActor(trainer.policy, trainer.statistics, one, parse_intervention(kind))
    Rollout(actor, lambda: env).run([one.seed])
    return np.array(env.actions), actor.ticks


def points_of(made):
    return {(p.coordinates[0][1], p.intervention): p.protocol for p in made.points}


def test_h_tick_and_memory_bite(trainer):
    """`h` is the steps per query, `tick` when memory is written, and a memory that is zeroed acts otherwise."""
    made = points_of(chunk_lengths(POSITION, (1, 2), ("none", "zero")))
    steps = len(acted(trainer, POSITION)[0])
    assert made[1, "none"] == POSITION, "what changes nothing is the base, whose rows are shared"
    assert [acted(trainer, made[h, "none"])[1] for h in (1, 2)] == [steps, -(-steps // 2)]
    every = points_of(chunk_lengths(POSITION, (2,), ("none",), tick="env_step"))[2, "none"]
    assert acted(trainer, every)[1] == steps and every.id == "recall-position3-rh+h2-env-step-hold@1"
    for h in (1, 2):
        plain, zeroed = (acted(trainer, made[h, kind], kind)[0] for kind in ("none", "zero"))
        assert not np.array_equal(plain, zeroed)
    opened = get_protocol("recall-position3-ol8@1")
    assert points_of(chunk_lengths(opened, (1,), ("none",)))[1, "none"].regime == "receding"


def test_hold_last_executes_the_last_action_again(trainer):
    """A chunk of two, five steps per query."""
    held = points_of(chunk_lengths(POSITION, (5,), ("none",)))[5, "none"]
    actions, ticks = acted(trainer, held)
    assert ticks == -(-len(actions) // 5) == 3
    for start in range(0, len(actions), 5):
        first, *rest = actions[start : start + 5].tolist()
        assert rest == [rest[0]] * len(rest) and first != rest[0]


def test_an_h_past_the_chunk_is_held_or_refused_as_declared(trainer, cell_with):
    for beyond, fits in (("hold_last", True), ("refuse", False)):
        made = chunk_lengths(POSITION, (2, 5), ("none",), beyond=beyond)
        one = points_of(made)[5, "none"]
        study = Study("s", "t", cell_with({"model.chunk": 2}), {"a": {}}, (), (0,), (one,))
        assert ("held" if fits else "refused") in made.notes and dict(made.points[0].coordinates)["beyond"] == beyond
        if fits:
            study.check()
            continue
        with refused("study s, protocol recall-position3-rh+h5-call@1: h"):
            study.check()
        with pytest.raises(MuvlaError) as info:
            acted(trainer, one)
        assert info.value.field == "protocol.h"
    assert points_of(made)[2, "none"] != points_of(chunk_lengths(POSITION, (2,), ("none",)))[2, "none"]


def test_every_memory_at_every_h():
    made = chunk_lengths(POSITION)
    assert {(dict(p.coordinates)["h"], p.intervention) for p in made.points} == {
        (h, kind) for h in (1, 2, 4, 8, 16) for kind in ("none", "zero", "drop", "empty")
    }
    assert {dict(p.coordinates)["memory"] for p in made.points} == {"active", "zeroed", "removed", "empty"}
    assert chance(made.points[0].protocol) and not chance(made.points[-1].protocol)


@pytest.mark.parametrize("base", [POSITION, get_protocol("recall-position3-ol8@1")], ids=lambda base: base.id)
def test_coordinates_of_an_h_are_those_of_its_protocol(base):
    """When memory ticks, and what is past the chunk, is a question of h > 1 alone."""
    of = {tick: chunk_lengths(base, (1, 2, 4), ("none", "zero"), tick=tick).points for tick in ("call", "env_step")}
    for points in of.values():
        for p in points:
            told = dict(p.coordinates)
            assert all(told[name] == getattr(p.protocol, name) for name in ("h", "tick", "beyond"))
    for by_call, by_step in zip(of["call"], of["env_step"], strict=True):
        assert (by_call == by_step) == (by_call.protocol == by_step.protocol) == (by_call.protocol.h == 1)
    assert dict(of["call"][0].coordinates) == {"h": 1, "memory": "active", "tick": "env_step", "beyond": "refuse"}


def test_other_coordinates_are_no_other_protocols():
    """The rows of what was evaluated as chunk-length@1 are those of these points."""
    points = chunk_lengths(POSITION).points
    assert content_hash([[p.protocol.id, p.protocol.hash, p.intervention] for p in points]) == "0d00393be432"


def test_a_step_limit_of_the_task_that_ends_it_before_the_decision_is_refused(trainer):
    short = replace(POSITION, name="short", task=TaskConfig("RecallPosition3-v0", cue=(4, 4), step_limit=5))
    with refused("protocol.task.step_limit") as info:
        actor = PolicyActor(trainer.policy, trainer.statistics, short)
        Rollout(actor, lambda: make_env(short.task)).run([short.seed])
    assert info.value.field == "protocol.task.step_limit"


# --- palette and shifts -----------------------------------------------------------------------------------------------


def test_every_subset_is_replaced_once_and_the_control_permutes():
    made = palettes(COLOR)
    own = task_info("RecallColor5-v0").colours
    assert made.points[0].protocol == COLOR
    control = made.points[1]
    assert dict(control.coordinates) == {"replaced": 0, "subset": "", "control": "permuted"}
    permuted = control.protocol.task.palette
    assert sorted(permuted) == sorted(own) and all(a != b for a, b in zip(permuted, own, strict=True))
    subsets = {dict(p.coordinates)["subset"]: p.protocol.task.palette for p in made.points[2:]}
    assert set(subsets) == {", ".join(s) for size in range(1, 6) for s in combinations(own, size)}
    for subset, palette in subsets.items():
        new = [after for before, after in zip(own, palette, strict=True) if before != after]
        assert ", ".join(b for b, a in zip(own, palette, strict=True) if a != b) == subset
        assert len(set(palette)) == 5 and set(new) <= set(NEW)
    assert subsets["magenta"][-1] == "white" and subsets[", ".join(own)] == NEW
    assert set(NEW) < set(COLOURS) and len({COLOURS[name] for name in (*own, *NEW)}) == 10
    wide = palettes(replace(COLOR, name="nine", task=TaskConfig("RememberColor9-VLA-v0")), (5,), sample=20)
    assert all(len(set(p.protocol.task.palette or range(9))) == 9 for p in wide.points)


def test_a_sample_is_the_seeds_own():
    made = [palettes(COLOR, sample=3, seed=seed).points for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert len(made[0]) == 2 + 3 * 4 + 1 and "seed 0" in palettes(COLOR, sample=3).notes
    assert [dict(p.coordinates)["replaced"] for p in palettes(POSITION).points] == [0, 1], "a mark cannot be permuted"
    with refused("probe of recall-color5-rh@1: replaced"):
        palettes(COLOR, (6,))


def same_but_for_looks(plain, changed):
    """Whether an episode of both has other pictures, and whether all else in it is the same."""
    (observation, info), (other, told) = (make_env(task).reset(seed=3) for task in (plain, changed))
    same = info["target"] == told["target"] and np.array_equal(observation["proprio"], other["proprio"])
    return not np.array_equal(observation["images"], other["images"]), same


def test_palettes_change_pictures_and_no_episode():
    everything, *others = [p.protocol.task for p in palettes(COLOR, (5,)).points[:0:-1]]
    assert same_but_for_looks(COLOR.task, everything) == (True, True)
    assert same_but_for_looks(COLOR.task, others[0]) == (True, True)


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("base", [POSITION, COLOR], ids=lambda base: base.task.name)
def test_shifts_change_pictures_and_no_episode(base, kind):
    made = {p.coordinates[0][1]: p.protocol for p in shifts(base).points}
    assert set(made) == {"none", *SHIFTS} and made["none"] == base
    assert same_but_for_looks(base.task, made[kind].task) == (True, True)


def test_what_each_shift_does():
    """Half as bright; the base camera alone; a disc in a corner alone."""
    plain, camera, light, distractor = (
        make_env(TaskConfig("RecallPosition3-v0", shift=kind)).reset(seed=3)[0]["images"].astype(int)
        for kind in (None, *SHIFTS)
    )
    assert np.abs(light - plain / 2).max() <= 0.5
    assert not np.array_equal(camera[0], plain[0]) and np.array_equal(camera[1], plain[1])
    where = np.argwhere((distractor != plain).any(axis=-1))
    assert set(where[:, 0]) == {0} and where[:, 1].min() > 20 and where[:, 2].min() > 20


def test_what_can_be_set():
    assert {"palette", "cue", "delay"} < set(task_info("RememberColor9-VLA-v0").settable)
    assert "palette" not in task_info("RememberShape9-VLA-v0").settable
    assert "delay" not in task_info("ShellGameTouch-VLA-v0").settable
    assert task_info("RememberShapeAndColor5x3-VLA-v0").colours == ("red", "lime", "blue")
    assert task_info("RememberShape9-VLA-v0").colours == task_info("libero_goal-0").colours == ()
