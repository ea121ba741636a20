"""Environments in processes under one policy: how many there are, how slow they are and whether they survive changes no
row."""

import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from helpers.errors import refused
from helpers.processes import is_running, running_below, shared_memory_of, wait_until
from helpers.studies import DATASET
from helpers.troubled import EPISODES, TASK, ThreeCameras, Troubled, lost_at_start
from muvla.data import collect as collection
from muvla.envs.recall.env import RecallEnv
from muvla.envs.workers import Limits, WorkerEnv, WorkerLost
from muvla.errors import Interrupted, MuvlaError, NotAMeasurement
from muvla.evaluation import context as evaluation
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.checks import get_attribute
from muvla.evaluation.context import EvaluationContext, default_workers
from muvla.evaluation.evaluate import EvaluationRequest, evaluate
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.records import read_rows
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.models.policy import Policy
from muvla.utils import devices as cores

SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=EPISODES, slots=3)
FIRST = SHORT.seed
assert SHORT.task.name == TASK


def request_of(trainer, protocol, kind=None, retry_errors=False):
    kind = parse_intervention(kind)
    return EvaluationRequest(trainer.policy, trainer.statistics, protocol, kind, "abc", 0, (range(24),), retry_errors)


def evaluated(trainer, folder, protocol=SHORT, kind=None, retry_errors=False, **options):
    context = EvaluationContext(lambda environment: nullcontext("p"), **options)
    return evaluate(request_of(trainer, protocol, kind, retry_errors), folder, context).rows


def in_processes(folder, trouble, limits=Limits()):  # noqa: B008
    return {"env_factory": lambda task, size: WorkerEnv(partial(Troubled, folder, trouble), limits)}


def content(rows, but=("seconds", "environment_seconds")):
    return {row.seed: replace(row, **dict.fromkeys(but)) for row in rows}


@pytest.fixture(scope="module")
def serial(trained, tmp_path_factory):
    """One environment after the other, in this process."""
    return content(evaluated(trained, tmp_path_factory.mktemp("serial"), workers=1))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "freeze_first"),
        pytest.param({}, "none", marks=pytest.mark.slow),
        pytest.param({"regime": "open_loop", "h": 4, "tick": "call"}, "noise_unit", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_rows_do_not_depend_on_the_number_of_environments(trained, tmp_path, changes, kind):
    """At the protocol's batch shape, bit for bit; more than its slots there never are."""
    one = replace(SHORT, **changes)
    by_number = [content(evaluated(trained, tmp_path / str(n), one, kind, workers=n)) for n in (1, 2, 7)]
    assert by_number[0] == by_number[1] == by_number[2] and len(by_number[0]) == EPISODES


@pytest.mark.parametrize("workers", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 3])
def test_nor_on_processes_or_who_is_slow(trained, tmp_path, serial, workers):
    trouble = {FIRST + i: "be slow" for i in (0, 3, 4)}
    rows = evaluated(trained, tmp_path, workers=workers, **in_processes(tmp_path, trouble))
    assert content(rows) == serial
    assert no_worker_of(os.getpid())


def no_worker_of(pid):
    """The tracker that Python's multiprocessing starts once is no worker."""
    lines = [Path(f"/proc/{child}/cmdline").read_bytes() for child in running_below(pid)]
    return not [line for line in lines if b"spawn_main" in line]


@pytest.mark.slow
def test_a_slow_environment_does_not_stall_the_others(trained, tmp_path, serial):
    """It goes on when all other episodes have begun, which they would never do if they had to wait for it."""
    trouble = {FIRST: "wait for the others"}
    rows = evaluated(trained, tmp_path, workers=2, **in_processes(tmp_path, trouble))
    assert content(rows) == serial and rows[-1].seed in (FIRST, FIRST + 7)


def test_a_worker_that_dies_costs_nothing_but_a_second_attempt(trained, tmp_path, serial):
    but = ("seconds", "environment_seconds", "attempt")
    rows = evaluated(trained, tmp_path, workers=2, **in_processes(tmp_path, {FIRST + 2: "die once"}))
    assert {row.seed: row.attempt for row in rows} == {seed: 1 + (seed == FIRST + 2) for seed in serial}
    assert content(rows, but) == content(serial.values(), but)
    assert rows == read_rows(next((tmp_path / "rows").iterdir()))


@pytest.mark.slow
def test_an_episode_that_loses_two_workers_is_an_error_row_and_the_others_go_on(trained, tmp_path, serial):
    trouble = {FIRST + 2: "die", FIRST + 5: "hang"}
    rows = evaluated(trained, tmp_path, workers=2, **in_processes(tmp_path, trouble, Limits(step=0.5)))
    errors = {row.seed: row for row in rows if row.error}
    assert set(errors) == set(trouble) and {row.attempt for row in errors.values()} == {2}
    assert errors[FIRST + 2].error.count("SIGSEGV") == 2, "the cause of both attempts"
    assert errors[FIRST + 5].error.count("0.5 s") == 2
    assert all(row.success_once is None and row.steps is None for row in errors.values())
    others = {seed: row for seed, row in content(rows).items() if seed not in trouble}
    assert others == {seed: row for seed, row in serial.items() if seed not in trouble}
    again = evaluated(trained, tmp_path, retry_errors=True)
    assert {row.seed: row.attempt for row in again if row.seed in trouble} == dict.fromkeys(trouble, 3)


def test_what_the_environments_tell_is_recorded_with_the_rows(trained, tmp_path):
    """Once per evaluation, before its first row."""

    class Telling(RecallEnv):
        provenance = {"wrappers": ["Telling"], "stand_in_assets": ["mug"]}  # noqa: RUF012

    told = []
    context = EvaluationContext(lambda environment: told.append(environment) or nullcontext("q"))
    telling = replace(context, env_factory=lambda task, size: Telling(task.name))
    file = evaluate(request_of(trained, SHORT), tmp_path, telling)
    assert told == [Telling.provenance] and {row.provenance for row in file.rows} == {"q"}
    evaluate(request_of(trained, replace(SHORT, name="other")), tmp_path, context)
    assert told[1:] == [{}], "the recall suite has nothing to tell"


def test_a_step_limit_before_the_decision_is_one_error(trained, tmp_path, monkeypatch):
    """It would be a choice of nothing in every episode."""
    slow = replace(SHORT, step_limit=4, task=replace(SHORT.task, cue=(2, 2), delay=(2, 2)))
    with pytest.raises(MuvlaError) as info:
        evaluated(trained, tmp_path, slow)
    assert info.value.field == "protocol short@1: step_limit"
    # Also where a simulator draws longer phases than its task is known to have.
    monkeypatch.setattr("muvla.evaluation.evaluate.require_decisions", lambda several: None)
    with refused("protocol.step_limit"):
        evaluated(trained, tmp_path, slow)
    assert not (tmp_path / "rows").exists()
    assert len(evaluated(trained, tmp_path, replace(slow, step_limit=5))) == 8


def test_actions_of_another_shape_are_no_measurement(trained, tmp_path, monkeypatch):
    step = Policy.step

    def shorter(self, *arguments):
        output = step(self, *arguments)
        return replace(output, actions=output.actions[:, :2])

    monkeypatch.setattr(Policy, "step", shorter)
    with pytest.raises(NotAMeasurement) as info:
        evaluated(trained, tmp_path)
    assert info.value.field == "action"


@pytest.mark.slow
def test_an_environment_that_does_not_fit_leaves_no_process(trained):
    with pytest.raises(MuvlaError) as info:
        Rollout(PolicyActor(trained.policy, trained.statistics, SHORT), lambda: WorkerEnv(ThreeCameras))
    assert info.value.field == "protocol.task"
    assert wait_until(lambda: no_worker_of(os.getpid()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["die", "raise"])
def test_a_first_worker_that_is_lost_at_its_start_is_tried_once_more(trained, tmp_path, serial, kind):
    def starting(folder, times):
        folder.mkdir()
        return {"env_factory": lambda task, size: WorkerEnv(partial(lost_at_start, folder, times, kind))}

    rows = evaluated(trained, tmp_path / "twice", workers=1, **starting(tmp_path / "once", 1))
    assert content(rows) == serial
    with pytest.raises(MuvlaError) as error:
        evaluated(trained, tmp_path / "never", workers=1, **starting(tmp_path / "always", 9))
    assert error.value.field == "simulator" and "muvla doctor --sim" in error.value.remedy
    cause = "SIGKILL" if kind == "die" else "no such library"
    assert error.value.got.count(cause) == 2, "the cause of both attempts"
    assert len(list((tmp_path / "always").glob("started-*"))) == 2 and not (tmp_path / "never" / "rows").exists()
    assert wait_until(lambda: no_worker_of(os.getpid()))


@pytest.mark.parametrize("losses", [0, 1, 2])
def test_what_an_environment_tells_is_asked_twice_at_most(losses):
    """Also its provenance: one that was lost is no environment that has nothing to tell."""

    class Lost:
        asked = retired = 0

        def attribute(self, name, *default):
            self.asked += 1
            if self.asked <= losses:
                raise WorkerLost(f"loss {self.asked}")
            return {name: default}

        def retire(self):
            self.retired += 1

    env = Lost()
    if losses < 2:
        assert get_attribute(env, "provenance", {}) == {"provenance": ({},)}
    else:
        with pytest.raises(MuvlaError) as info:
            get_attribute(env, "provenance", {})
        assert info.value.field == "simulator"
    assert (env.asked, env.retired) == (min(losses + 1, 2), min(losses, 1))


def test_simulators_of_all_evaluations_at_once_share_the_cores(monkeypatch):
    """Environments in this process cost no core each."""
    simulated = get_protocol("mikasa-remember-color3-rh@2")
    monkeypatch.setattr(evaluation, "usable_cores", lambda: 8)
    assert [default_workers(simulated, n) for n in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert default_workers(SHORT, 20) == SHORT.slots


def test_cores_follow_affinity_and_the_quota_of_the_container(monkeypatch, tmp_path):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    for quota, expected in (("250000 100000", 2), ("50000 100000", 1), ("max 100000", 6), ("900000 100000", 6)):
        (tmp_path / "cpu.max").write_text(quota)
        assert cores.usable_cores() == expected, quota
    (tmp_path / "cpu.max").unlink()
    assert cores.usable_cores() == 6


def test_a_collection_uses_the_same_cores(monkeypatch, tmp_path):
    def stop(writer, progress, jobs):
        raise Interrupted(jobs)

    monkeypatch.setattr(collection, "_write", stop)
    monkeypatch.setattr(collection, "usable_cores", lambda: 5)
    for jobs, expected in ((None, 5), (3, 3)):
        with pytest.raises(Interrupted) as stopped:
            collection.collect(DATASET, tmp_path, jobs=jobs)
        assert stopped.value.args == (expected,)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_nothing_and_continues(trained, tmp_path, serial):
    """kill −9 in the middle: no process, no shared memory, no half row; the same command completes the rows."""
    file = tmp_path / "rows"
    options = {"workers": 2, **in_processes(tmp_path, dict.fromkeys(range(FIRST, FIRST + 8), "be slow"))}
    pid = os.fork()
    if pid == 0:
        evaluated(trained, tmp_path, **options)
        os._exit(0)
    assert wait_until(lambda: any(path.read_text().count("\n") >= 2 for path in file.glob("*")))
    workers = running_below(pid)
    shared = shared_memory_of(pid, *workers) - shared_memory_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(workers) == 2 and wait_until(lambda: not any(is_running(worker) for worker in workers))
    assert not any(file.exists() for file in shared)
    (rows,) = file.glob("*")
    done = len(read_rows(rows))
    assert 2 <= done < 8
    with rows.open("a") as handle:
        handle.write('{"result": "cut')
    assert content(evaluated(trained, tmp_path, **options)) == serial
    assert len(read_rows(rows)) == 8
