"""Traces: the memory of whole episodes on disk, in half precision."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.troubled import Broken, Troubled
from muvla.config import TaskConfig
from muvla.envs.phases import Phase
from muvla.envs.registry import make_env
from muvla.envs.workers import WorkerEnv
from muvla.errors import DiskError, MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.replay import replay
from muvla.models.compilation import compile_step
from muvla.probes import traces
from muvla.probes.base import Subject
from muvla.probes.traces import Trace, most_bytes, read_trace, traces_folder, traces_of, write_trace
from muvla.training.trainer import Trainer
from muvla.utils import provenance

SHORT = replace(
    get_protocol("recall-position3-rh@1"),
    name="short",
    episodes=4,
    slots=3,
    task=TaskConfig("RecallPosition3-v0", blank=(1, 2)),
)
SEEDS = tuple(range(SHORT.seed, SHORT.seed + SHORT.episodes))


@pytest.fixture(scope="module")
def trainer(store, cell_with):
    return Trainer(cell_with({"model.chunk": 4}), store)


def subject(trainer, folder, **changes):
    plain = Subject(
        trainer.policy,
        trainer.statistics,
        SHORT,
        trainer.cell,
        SEEDS,
        folder / "reading",
        lambda: make_env(SHORT.task),
        lambda: trainer.stream.store,
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def recorded(trainer, tmp_path_factory):
    one = subject(trainer, tmp_path_factory.mktemp("probes"))
    return one, traces_of(one)


def test_a_trace_is_the_memory_of_the_episode_that_anybody_else_sees(trainer, recorded):
    _, found = recorded
    assert [trace.seed for trace in found] == list(SEEDS)
    actor = PolicyActor(trainer.policy, trainer.statistics, SHORT)
    replayed = replay(actor, lambda: make_env(SHORT.task), SEEDS[1:2], environments=1)[SEEDS[1]]
    trace = found[1]
    told = replayed.outcome.info
    assert trace.measured == told and trace.labels == {"target": told["target"]}
    assert np.array_equal(trace.read, np.float16([step.memory for step in replayed.steps]).astype(np.float32))
    assert trace.read.dtype == trace.memory.dtype == np.float32 and trace.memory.shape == (told["steps"], 4, 96)
    assert np.array_equal(trace.read[1:], trace.memory[:-1]), "what a tick wrote is what the next one reads"
    assert np.array_equal(trace.step, np.arange(told["steps"]))
    assert (trace.phase == Phase.CUE).sum() == told["cue_length"]
    assert trace.phase[trace.events["cue_end"]] == Phase.CUE != trace.phase[trace.events["cue_end"] + 1]


def test_episodes_that_have_a_file_are_not_run_again(recorded):
    one, found = recorded
    resets = []

    class Counted(type(make_env(SHORT.task))):
        def reset(self, *, seed=None, options=None):
            resets.append(seed)
            return super().reset(seed=seed, options=options)

    again = replace(one, open_env=lambda: Counted(SHORT.task.name, blank=SHORT.task.blank))
    assert len(traces_of(again)) == 4 and resets == []
    (traces_folder(one) / f"{SEEDS[2]}.safetensors").unlink()
    back = traces_of(again)
    assert resets == [SEEDS[2]], "the others are on disk"
    for before, after in zip(found, back, strict=True):
        assert np.array_equal(before.memory, after.memory) and before.measured == after.measured


def test_the_size_is_told_before_and_is_not_exceeded(trainer, tmp_path, capsys):
    one = subject(trainer, tmp_path)
    found = traces_of(one)
    steps = make_env(SHORT.task).step_limit
    most = most_bytes(trainer.policy.memory, 4, steps)
    assert most == 4 * steps * (2 * 4 * 96) * 2
    assert f"{most / 1e6:.3g} MB" in capsys.readouterr().err
    files = sum(path.stat().st_size for path in traces_folder(one).iterdir())
    ticks = sum(len(trace.step) for trace in found)
    assert ticks * (2 * 4 * 96) * 2 < files < most + 4 * 2000


def test_a_memory_that_ticks_by_call_has_a_trace_of_its_ticks(trainer, tmp_path):
    by_call = replace(SHORT, regime="open_loop", h=4, tick="call")
    for trace in traces_of(subject(trainer, tmp_path, protocol=by_call, seeds=SEEDS[:1])):
        assert np.array_equal(trace.step, np.arange(0, trace.measured["steps"], 4))


def test_traces_of_other_weights_or_another_protocol_are_not_these(trainer, cell_with, store, tmp_path):
    one = subject(trainer, tmp_path)
    other = Trainer(cell_with({"model.chunk": 4, "seed": 1}), store)
    folders = {
        traces_folder(one),
        traces_folder(replace(one, policy=other.policy)),
        traces_folder(replace(one, protocol=replace(SHORT, slots=2))),
    }
    assert len(folders) == 3
    assert traces_folder(one) == traces_folder(replace(one, folder=tmp_path / "another reading"))
    before = traces_folder(replace(one, policy=other.policy))
    other.step()
    assert traces_folder(replace(one, policy=other.policy)) != before, "an update later"


def test_traces_of_another_way_of_computing_are_not_these(store, cell_with, tmp_path, monkeypatch):
    """Whatever may change a number has traces of its own; by whom they were asked for does not."""

    def folder(change=lambda policy: None):
        one = subject(Trainer(cell_with({"model.chunk": 4}), store), tmp_path)
        change(one.policy)
        return traces_folder(one)

    def lower(policy):
        policy.config = replace(policy.config, precision="bfloat16")

    plain = folder()
    monkeypatch.setattr(provenance, "_git", lambda: {"commit": "another", "dirty": True})
    monkeypatch.setattr(provenance.sys, "argv", ["another", "command"])
    assert folder() == plain
    ways = {folder(change) for change in (compile_step, lambda policy: policy.double(), lower)}
    for where, name, value in (
        (torch, "get_num_threads", lambda: 7),
        (provenance, "processor", lambda: "another"),
        (provenance, "CODE_VERSION", "another"),
        (provenance, "member_versions", lambda modules: {"muvla.memory.tokens": "another"}),
        (provenance, "_version", lambda package: "another"),
        (traces, "backends", lambda task: "another renderer"),
        (traces, "provenance", lambda *of, **more: provenance.provenance(*of, **more) | {"device": "another GPU"}),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(where, name, value)
            ways.add(folder())
    assert len(ways | {plain}) == 11


def test_a_trace_of_before_compiling_is_recorded_anew(trainer, tmp_path, monkeypatch):
    one = subject(trainer, tmp_path, seeds=SEEDS[:1])
    traces_of(one)
    monkeypatch.setattr(traces, "is_compiled", lambda policy: True)
    again = []
    monkeypatch.setattr(traces, "_record", lambda *given: again.append(given[2]))
    with pytest.raises(MuvlaError) as refused:
        traces_of(one)
    assert refused.value.field == str(traces_folder(one) / f"{SEEDS[0]}.safetensors")
    assert again == [[SEEDS[0]]]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_file_that_is_cut_short_says_so(recorded, keep):
    one, found = recorded
    path = traces_folder(one) / f"{SEEDS[0]}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(MuvlaError) as refused:
        traces_of(one)
    assert refused.value.field == str(path)
    path.write_bytes(whole)
    assert np.array_equal(read_trace(path).memory, found[0].memory)


def test_a_file_of_something_else_is_no_trace(tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file({"step": np.zeros(3)}, tmp_path / "7.safetensors", metadata={"format": "np"})
    with pytest.raises(MuvlaError) as refused:
        read_trace(tmp_path / "7.safetensors")
    assert refused.value.field == str(tmp_path / "7.safetensors")


def test_leaves_are_tokens_where_they_can_be(tmp_path):
    def trace(**written):
        return Trace(7, written, np.ones((2, 1, 3), np.float32), np.arange(2), np.ones(2), {}, {}, {"choice": -1})

    both = trace(b=np.ones((2, 5, 3), np.float32), a=np.zeros((2, 1, 3), np.float32))
    assert both.memory.shape == (2, 6, 3) and not both.memory[:, 0].any()
    mixed = trace(tokens=np.ones((2, 5, 3), np.float32), count=np.zeros((2, 4), np.float32))
    assert mixed.memory.shape == (2, 1, 19)
    write_trace(tmp_path, mixed)
    again = read_trace(tmp_path / "7.safetensors")
    assert np.array_equal(again.memory, mixed.memory) and again.measured == {"choice": -1}


def test_without_a_memory_there_is_nothing_to_trace(store, cell_with, tmp_path):
    none = Trainer(cell_with({"memory.kind": "none", "memory.m": 0}), store)
    with pytest.raises(MuvlaError) as refused:
        traces_of(subject(none, tmp_path))
    assert refused.value.field == "probe"


def test_episodes_that_fail_are_told_and_the_others_are_kept(trainer, tmp_path):
    made = []

    def make():
        made.append(None)
        return (Broken if len(made) == 1 else type(make_env(SHORT.task)))(SHORT.task.name)

    one = subject(trainer, tmp_path, open_env=make)
    with pytest.raises(MuvlaError) as refused:
        traces_of(one)
    assert refused.value.field == "traces of short@1" and "exploded" in refused.value.got
    assert 0 < len(list(traces_folder(one).glob("*.safetensors"))) < 4
    assert len(traces_of(subject(trainer, tmp_path))) == 4


def test_a_full_disk_is_told_before_the_first_episode(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(traces.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskError):
        traces_of(subject(trainer, tmp_path))
    assert not traces_folder(subject(trainer, tmp_path)).exists()


def test_numbers_beyond_half_precision_are_refused():
    with pytest.raises(MuvlaError) as refused:
        traces._half(torch.tensor([1.0, 7e4]))
    assert refused.value.field == "traces"


@pytest.mark.slow
def test_an_attempt_that_lost_its_worker_is_no_part_of_the_trace(trainer, recorded, tmp_path):
    plain = replace(SHORT, task=TaskConfig("RecallPosition3-v0"))
    seeds = SEEDS[:1]
    lost = partial(Troubled, tmp_path / "marks", {seeds[0]: "die once"})
    (tmp_path / "marks").mkdir()
    folder, other = tmp_path / "a", tmp_path / "b"
    once = traces_of(subject(trainer, folder, protocol=plain, seeds=seeds, open_env=lambda: WorkerEnv(lost)))
    never = traces_of(subject(trainer, other, protocol=plain, seeds=seeds, open_env=lambda: make_env(plain.task)))
    assert np.array_equal(once[0].memory, never[0].memory) and np.array_equal(once[0].read, never[0].read)


def test_recall_tells_the_cued_colour_apart_from_its_place():
    env = make_env(TaskConfig("RecallColor3-v0"))
    for seed in range(8):
        _, info = env.reset(seed=seed)
        assert env.drawn.colour_at[info["target"]] == info["identity"]
    assert make_env(TaskConfig("RecallPosition3-v0")).reset(seed=0)[1]["identity"] is None
