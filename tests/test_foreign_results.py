"""Results of vla-eval and LeRobot as marked lines."""

import json

import pytest

from muvla.cli.main import main
from muvla.errors import MuvlaError
from muvla.serving.foreign_results import read_results
from muvla.stats.proportions import wilson


def episode(success, failure=None):
    metrics = {} if success is None else {"success": success}
    return {"episode_id": 0, "metrics": metrics, "steps": 3, "failure_reason": failure, "failure_detail": None}


def vla_eval(*tasks):
    tasks = [{"task": f"t{i}", "episodes": list(e), "num_episodes": len(e)} for i, e in enumerate(tasks)]
    return {"benchmark": "LIBERO", "mode": "sync", "harness_version": "0.8.0", "created_at": "", "tasks": tasks}


def lerobot_task(group, number, successes):
    rewards = [0.0] * len(successes)
    metrics = {"sum_rewards": rewards, "max_rewards": rewards, "successes": successes, "video_paths": []}
    return {"task_group": group, "task_id": number, "metrics": metrics}


def lerobot_total(pc, n):
    return {"avg_sum_reward": 0.1, "avg_max_reward": 0.1, "pc_success": pc, "n_episodes": n, "video_paths": []}


def lerobot(successes, pc, n):
    """The layout of LeRobot 0.6.2 (`lerobot-eval` writes the value of `eval_policy_all`)."""
    return {
        "per_task": [lerobot_task("libero_10", 0, successes)],
        "per_group": {},
        "overall": lerobot_total(pc, n) | {"eval_s": 1.0, "eval_ep_s": 0.5},
    }


def two_groups(changed=None):
    tasks = [lerobot_task("a", 0, [True, False]), lerobot_task("a", 1, [True]), lerobot_task("b", 0, [False])]
    groups = {"a": lerobot_total(200 / 3, 3), "b": lerobot_total(0.0, 1)} | (changed or {})
    return {"per_task": tasks, "per_group": groups, "overall": lerobot_total(50.0, 4)}


def written(tmp_path, content):
    file = tmp_path / "result.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_result_of_vla_eval_has_a_line_per_task_and_errors_are_failures(tmp_path, capsys):
    file = written(tmp_path, vla_eval([episode(True), episode(False), episode(None, "timeout")], [episode(1)]))
    lines = read_results(file)
    assert [(line.task, line.n, line.successes, line.errors) for line in lines] == [
        ("t0", 3, 1, 1),
        ("t1", 1, 1, 0),
        ("all", 4, 2, 1),
    ]
    assert main(["import-results", str(file), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)["results"][2]
    assert (plain["low"], plain["high"]) == tuple(round(limit, 4) for limit in wilson(2, 4))
    assert plain["errors_are_failures"] and "vla-eval 0.8.0" in plain["source"]


def test_a_result_of_lerobot_has_its_tasks_and_the_total(tmp_path):
    lines = read_results(written(tmp_path, lerobot([True, False, True], 200 / 3, 3)))
    assert [(line.task, line.n, line.successes, line.errors) for line in lines] == [
        ("libero_10/0", 3, 2, None),
        ("all", 3, 2, None),
    ]


def test_groups_of_lerobot_are_held_against_their_tasks(tmp_path):
    lines = read_results(written(tmp_path, two_groups()))
    assert [(line.task, line.n, line.successes) for line in lines] == [
        ("a/0", 2, 1),
        ("a/1", 1, 1),
        ("b/0", 1, 0),
        ("all", 4, 2),
    ]
    lines = read_results(written(tmp_path, two_groups() | {"per_task": []}))
    assert [(line.task, line.n, line.successes) for line in lines] == [("a", 3, 2), ("b", 1, 0), ("all", 4, 2)]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("{", "result.json"),
        ({"tasks": []}, "result.json"),
        ({"scores": []}, "result.json"),
        (vla_eval([]), "result.json"),
        (vla_eval([episode("yes")]), "success"),
        (vla_eval([episode(0.5)]), "success"),
        (vla_eval([episode(None)]), "success"),
        (vla_eval([episode(True)]) | {"tasks": [{"task": "a", "episodes": [], "num_episodes": 3}]}, "num_episodes"),
        (lerobot([True], 50.0, 3), "pc_success"),
        (lerobot([True], 0.0, 1), "per_task"),
        (lerobot([True], 101.0, 1), "pc_success"),
        (two_groups({"b": lerobot_total(100.0, 1)}), "per_group.b"),
        (two_groups({"a": lerobot_total(50.0, 3)}), "per_group.a.pc_success"),
        ({"per_episode": [], "aggregated": {"pc_success": 50.0}}, "result.json"),
        (lerobot([True], 100.0, 1) | {"per_task": {"libero_10": {"0": [True]}}}, "per_task"),
        (lerobot([True], 100.0, 1) | {"per_task": [lerobot_task("a", 0, ["yes"])]}, "successes"),
    ],
)
def test_a_file_that_is_no_result_names_its_field(tmp_path, content, field):
    with pytest.raises(MuvlaError) as info:
        read_results(written(tmp_path, content))
    assert field in info.value.field
