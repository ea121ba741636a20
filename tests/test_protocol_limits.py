"""What a protocol takes from its task: it is in no hash, and held here."""

import json
from dataclasses import replace

import pytest

from helpers.paths import TESTS
from muvla.envs.libero.tasks import LIBERO_TASKS
from muvla.envs.maniskill.tasks import MANISKILL_TASKS
from muvla.envs.mikasa.tasks import MIKASA_TASKS
from muvla.envs.recall import tasks as recall
from muvla.envs.registry import step_limit, task_info
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol

GOLDEN = TESTS / "golden" / "limits.json"


def resolved(one: Protocol) -> list:
    """Step limit and instruction; where every episode has its own instruction, one of them."""
    return [one.step_limit or step_limit(one.task), task_info(one.task.name).instruction]


def changed() -> list[str]:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return [id for id in declared_protocols() if id in golden and golden[id] != resolved(declared_protocols()[id])]


def test_an_edited_limit_or_instruction_needs_a_new_version():
    assert not changed(), "give the protocols a new version, and the ones of before the step limit that they had"
    missing = set(declared_protocols()) ^ set(json.loads(GOLDEN.read_text(encoding="utf-8")))
    assert not missing, f"add {sorted(missing)} to tests/golden/limits.json"


@pytest.mark.parametrize("suite", ["mikasa", "recall", "libero", "maniskill"])
def test_editing_what_a_task_tells_is_noticed(monkeypatch, suite):
    if suite == "mikasa":
        task = MIKASA_TASKS["TakeItBack-VLA-v0"]
        monkeypatch.setitem(MIKASA_TASKS, task.name, replace(task, step_limit=61))
        assert changed() == ["mikasa-take-it-back-rh@1", "mikasa-take-it-back-ol8@1"]
    elif suite == "recall":
        monkeypatch.setattr(recall, "DECISION_STEPS", 11)
        assert changed() == [one.id for one in declared_protocols().values() if one.task.name in recall.RECALL_TASKS]
    elif suite == "maniskill":
        task = MANISKILL_TASKS["PickCube-v1"]
        monkeypatch.setitem(MANISKILL_TASKS, task.name, replace(task, instruction="Pick up the cube."))
        assert changed() == ["maniskill-pick-cube-rh@1", "maniskill-pick-cube-ol8@1"]
    else:
        task = LIBERO_TASKS["libero_goal-0"]
        monkeypatch.setitem(LIBERO_TASKS, task.name, replace(task, file="close_the_door"))
        memoryvla = ["memoryvla-libero-goal-0@1", "memoryvla-libero-goal-0-matched@1"]
        assert changed() == ["libero-goal-0-rh@1", "libero-goal-0-ol8@1", *memoryvla]
