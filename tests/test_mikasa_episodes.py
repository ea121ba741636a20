"""Two whole rendered episodes of every published task through the evaluator, in processes, with a tiny policy that was
not trained, and two of some of ManiSkill's. `make test-sim` runs all 23; elsewhere three stand for them."""

import os
from contextlib import nullcontext

import pytest

from muvla.checkpoints.build import build_policy
from muvla.config import TaskConfig
from muvla.data.normalization import Statistics
from muvla.envs.maniskill import MANISKILL_TASKS
from muvla.envs.mikasa import MIKASA_TASKS, PUBLISHED
from muvla.envs.mikasa.stand_ins import write_stand_in
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.evaluate import EvaluationRequest, evaluate
from muvla.evaluation.protocol import BASE, Protocol
from muvla.models.policy import Interface

pytestmark = [pytest.mark.sim, pytest.mark.slow]
EVERY = os.environ.get("MUVLA_EVERY_TASK") == "1"  # set by `make test-sim`
TASKS = PUBLISHED if EVERY else ("RememberShape3-VLA-v0", "ShellGamePush-VLA-v0", "InterceptFast-VLA-v0")
PLAIN = ("PushCube-v1", "StackCube-v1") if EVERY else ("StackCube-v1",)


@pytest.fixture(scope="module")
def episodes(base, tmp_path_factory):
    """`episodes(task)` → the rows of two episodes, and what the environments told."""
    root = tmp_path_factory.mktemp("episodes")
    write_stand_in(root)

    def run(task, **changes):
        known = (MIKASA_TASKS | MANISKILL_TASKS)[task]
        interface = Interface(known.cameras, known.proprio, action_dim=7, text=96, text_padded=True)
        statistics = Statistics(
            (-1.0,) * 7, (1.0,) * 7, (-3.0,) * known.proprio, (3.0,) * known.proprio, (True,) * 7, ""
        )
        told = []
        protocol = Protocol("two", 1, TaskConfig(task), episodes=2, seed=BASE, image_size=32, slots=2, **changes)
        request = EvaluationRequest(build_policy(base, interface), statistics, protocol, None, "tiny", 0, ())
        context = EvaluationContext(lambda environment: told.append(environment) or nullcontext("p"), workers=1)
        return evaluate(request, root / task, context).rows, told[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MS_ASSET_DIR", str(root))
        yield run


@pytest.mark.parametrize("name", TASKS)
def test_two_episodes_of_a_published_task(episodes, name):
    task = MIKASA_TASKS[name]
    rows, told = episodes(name)
    assert [(row.seed, row.error, row.attempt, row.group) for row in rows] == [
        (BASE + i, None, 1, "mikasa") for i in range(2)
    ]
    assert told.get("stand_in_assets", []) == (["025_mug"] if task.assets else [])
    for row in rows:
        assert row.steps == task.step_limit or row.success_once
        assert row.first_decision_step == row.cue_length + row.delay_length
        assert (row.target is None) == (task.objects is None) and (row.choice == -1 or task.objects)


@pytest.mark.parametrize("name", PLAIN)
def test_two_episodes_of_maniskills_own(episodes, name):
    rows, _ = episodes(name, step_limit=None if EVERY else 8)
    assert {(row.error, row.group, row.target, row.first_decision_step) for row in rows} == {
        (None, "maniskill", None, 0)
    }
    assert all(row.steps == (50 if EVERY else 8) or row.success_once for row in rows)
