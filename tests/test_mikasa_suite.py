"""The tasks on the real simulator, in one process of their own with stand-ins for YCB's mug and the bulb of the lamps.
`make test-sim` resets and steps all of MIKASA's and ManiSkill's; elsewhere five stand for them."""

import json
import os
import subprocess
import sys

import pytest

from muvla.envs.maniskill import MANISKILL_TASKS
from muvla.envs.mikasa import MIKASA_TASKS, TRAINED
from muvla.envs.mikasa.stand_ins import write_bulb, write_stand_in

pytestmark = pytest.mark.sim
EVERY = os.environ.get("MUVLA_EVERY_TASK") == "1"  # set by `make test-sim`
STEPPED = (
    tuple(MIKASA_TASKS)
    if EVERY
    else (
        "ShellGameTouch-VLA-v0",
        "RotateLenientPosNeg-VLA-v0",
        "TakeItBack-VLA-v0",
        "SeqOfColors3-Long-VLA-v0",
    )
)
PLAIN = tuple(name for name, task in MANISKILL_TASKS.items() if not task.assets) if EVERY else ("StackCube-v1",)
SOLVED = (*TRAINED, "ShellGameTouch-VLA-v0")

PROGRAM = f"""
import json
import numpy as np
from mani_skill.utils.gym_utils import find_max_episode_steps_value
from muvla.envs.maniskill import ManiSkillEnv
from muvla.envs.mikasa import MikasaEnv


def tell(about, **facts):
    print("TOLD", json.dumps([about, facts]))


for task in {STEPPED + PLAIN}:
    env = (MikasaEnv if task in {STEPPED} else ManiSkillEnv)(task)
    observation, info = env.reset(seed=1)
    seen, ends = [observation], []
    for _ in range(2):
        observation, _, terminated, truncated, info = env.step(np.full(7, 0.1))
        seen.append(observation)
        ends.append(terminated or truncated)
    own = env._base.evaluate().get("language_instruction", "")
    tell(["stepped", task], fits=all(o in env.observation_space for o in seen), ended=any(ends),
         contrast=min(float(picture.std()) for o in seen for picture in o["images"]),
         executed=float(info["executed_action"][0]), wrappers=env.provenance["wrappers"],
         limit=[env.step_limit, int(find_max_episode_steps_value(env._env))], stand_ins=env.stand_in_assets,
         instruction=info["instruction"], own=own if isinstance(own, str) else own[0],
         expert=info["expert_action"] is not None, target=info["target"], choice=info["choice"],
         lengths=[info["cue_length"], info["delay_length"]])
    env.close()

for task in {SOLVED}:
    env = MikasaEnv(task, frames=False)
    _, info = env.reset(seed=20)
    phases, over = [info["phase"].name], False
    while not over:
        _, _, terminated, truncated, info = env.step(info["expert_action"])
        phases.append(info["phase"].name)
        over = terminated or truncated or info["success"]
    tell(["solved", task], success=info["success"], right=info["choice"] == info["target"] or info["target"] is None,
         phases=[phases.count("CUE"), phases.count("DELAY")], lengths=[info["cue_length"], info["delay_length"]])
    env.close()

def trace(env, seed, steps, rendered=False):
    observation, info = env.reset(seed=seed)
    seen = [observation]
    for _ in range(steps):
        observation, *_, info = env.step(info["expert_action"])
        rendered and env._env.render()
        seen.append(observation)
    return seen

def same(first, second, what="proprio"):
    return all(np.array_equal(a[what], b[what]) for a, b in zip(first, second, strict=True))

for task, steps in (("ShellGamePush-VLA-v0", 5), ("RememberShapeAndColor3x3-VLA-v0", 17)):
    seeing, again = MikasaEnv(task), MikasaEnv(task)
    first, second = trace(seeing, 3, steps), trace(again, 3, steps, rendered=True)
    blind = MikasaEnv(task, frames=False)
    trace(blind, 0, 18)  # another episode before it, with a touch
    black = trace(blind, 3, steps)
    tell(["pictures", task], rendered=same(first, second) and same(first, second, "images"),
         blind=same(first, black), black=not any(o["images"].any() for o in black))
    for env in (seeing, again, blind):
        env.close()

env = MikasaEnv("ShellGameTouch-VLA-v0", frames=False, lengths={{"cue": (9, 9)}})
_, info = env.reset(seed=3)
before, cue = env.places(), 0
while info["phase"].name == "CUE":
    cue += 1
    _, *_, info = env.step(np.zeros(7))
_, *_, info = env.step(np.zeros(7))
tell("lengths", cue=cue, limit=int(env._env.max_episode_steps), moved=float(np.abs(env.places() - before).max()))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the program tells, by what it tells it about."""
    root = tmp_path_factory.mktemp("assets")
    write_stand_in(root)
    write_bulb(root)
    assets = {"MS_ASSET_DIR": str(root), "MUVLA_MIKASA_LAMP": str(root)}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=os.environ | assets,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line.removeprefix("TOLD ")) for line in ended.stdout.splitlines() if line.startswith("TOLD ")]
    return {tuple(about) if isinstance(about, list) else about: facts for about, facts in lines}


@pytest.mark.parametrize("name", STEPPED)
def test_a_task_resets_and_steps(told, name):
    task, facts = MIKASA_TASKS[name], told["stepped", name]
    assert facts["fits"] and not facts["ended"] and facts["contrast"] > 5
    assert facts["limit"] == [task.step_limit] * 2
    assert facts["instruction"] == facts["own"]
    models = {"shellgame": "025_mug", "lamp": "low_poly_light_bulb.glb"}
    assert facts["stand_ins"] == [models[asset_set.name] for asset_set in task.assets]
    assert facts["expert"] == task.expert and facts["choice"] == -1
    assert (facts["target"] is None) == (task.objects is None)
    for length, (shortest, longest) in zip(facts["lengths"], (task.cue, task.delay), strict=True):
        assert shortest <= length <= longest
    # Only a task that is not `free` is held still in its cue and delay.
    assert (facts["executed"] == 0) == (not task.free and sum(facts["lengths"]) > 1)
    assert ("CurriculumPhaseNoopActionWrapper" in facts["wrappers"]) == (not task.free and task.cue[1] > 0)


@pytest.mark.parametrize("name", PLAIN)
def test_a_task_of_maniskills_own_resets_and_steps(told, name):
    task, facts = MANISKILL_TASKS[name], told["stepped", name]
    assert facts["fits"] and not facts["ended"] and facts["contrast"] > 5
    assert facts["limit"] == [task.step_limit] * 2 and facts["instruction"] == task.instruction
    assert (facts["target"], facts["choice"], facts["expert"], facts["lengths"]) == (None, -1, False, [0, 0])
    assert facts["executed"] == pytest.approx(0.1) and facts["stand_ins"] == []


@pytest.mark.parametrize("name", SOLVED)
def test_the_expert_solves_an_episode(told, name):
    facts = told["solved", name]
    assert facts["success"] and facts["right"]
    assert facts["phases"] == facts["lengths"]


@pytest.mark.parametrize("name", ["ShellGamePush-VLA-v0", "RememberShapeAndColor3x3-VLA-v0"])
def test_an_episode_is_its_seeds_alone_and_pictures_change_nothing(told, name):
    """Bit for bit: with and without a picture after every step (on a GPU it is part of the physics), without any
    (how experts are measured), and after another episode, whose contacts would stay in the scene."""
    assert told["pictures", name] == {"rendered": True, "blind": True, "black": True}


def test_phase_lengths_that_are_set_are_drawn_and_lengthen_the_episode(told):
    """And the cups of ShellGameTouch are at rest where they stood, however long they were lifted."""
    facts = told["lengths"]
    assert (facts["cue"], facts["limit"]) == (9, 34)
    assert facts["moved"] < 0.001
