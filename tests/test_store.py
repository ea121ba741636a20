"""The episode store: exact, resumable, and loud about damage."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from helpers.processes import is_running, running_below, wait_until
from helpers.troubled import Troubled
from muvla.config import DataConfig, DatasetConfig, TaskConfig
from muvla.data import collect as module
from muvla.data.collect import collect, demonstrate
from muvla.data.normalization import Statistics
from muvla.data.store import COLUMNS, EpisodeStore, EpisodeWriter, get_store_path
from muvla.data.stream import SlotStream
from muvla.envs.phases import NO_OP_PHASES
from muvla.envs.registry import make_env, task_info
from muvla.envs.workers import WorkerEnv, WorkerError
from muvla.errors import MuvlaError

TASK = TaskConfig("RecallPosition3-v0")
SPEC = DatasetConfig(task=TASK, episodes=5)


def test_what_is_read_is_what_was_demonstrated(store):
    for i, line in enumerate(store.index):
        episode = demonstrate(make_env(TASK), line["seed"], TASK.name)
        rows = slice(line["start"], line["start"] + line["length"])
        for name in ("images", "proprio", "executed_action", "recorded_action", "phase"):
            assert np.array_equal(store[name][rows], getattr(episode, name)), (i, name)


def test_executed_and_recorded_actions_are_both_kept(store):
    frozen = np.isin(store["phase"], [int(p) for p in NO_OP_PHASES])
    assert not store["executed_action"][frozen].any()
    assert np.abs(store["recorded_action"][frozen]).max(axis=1).min() > 0.5, "the expert points at the target"
    assert np.array_equal(store["executed_action"][~frozen], store["recorded_action"][~frozen])
    assert np.array_equal(store.is_executed, ~frozen)


def test_collecting_again_returns_the_same_store(store, data_root):
    again = collect(store.spec, data_root)
    assert again.sha256 == store.sha256
    again.verify()


def test_identity_is_a_function_of_the_content(tmp_path):
    one, two = collect(SPEC, tmp_path / "a"), collect(SPEC, tmp_path / "b")
    other = collect(DatasetConfig(task=TASK, episodes=5, seed=100), tmp_path / "a")
    assert one.sha256 == two.sha256 != other.sha256


def test_an_interrupted_collection_continues_and_ends_the_same(tmp_path):
    whole = collect(SPEC, tmp_path / "whole")
    path = get_store_path(tmp_path / "cut", SPEC)
    writer = EpisodeWriter(path, SPEC)
    for seed in range(2):
        writer.append(demonstrate(make_env(TASK), seed, TASK.name))
    with (path / "images.bin").open("ab") as columns, (path / "episodes.jsonl").open("ab") as index:
        columns.write(b"half a frame")  # a crash in the middle of an episode
        index.write(b'{"start": 12, "len')
    assert collect(SPEC, tmp_path / "cut").sha256 == whole.sha256


def test_a_crash_before_the_seal_adds_no_episode(tmp_path, monkeypatch):
    whole = collect(SPEC, tmp_path / "whole")

    def dies(self, attempts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeWriter, "seal", dies)
        with pytest.raises(KeyboardInterrupt):
            collect(SPEC, tmp_path / "cut")
    assert collect(SPEC, tmp_path / "cut").sha256 == whole.sha256


def test_two_collections_of_one_dataset_do_not_mix(tmp_path):
    """The second waits for the first and takes what it made."""
    whole = collect(SPEC, tmp_path / "whole")
    code = (
        "from pathlib import Path; from muvla.config import *; from muvla.data.collect import collect; "
        "spec = DatasetConfig(task=TaskConfig('RecallPosition3-v0'), episodes=5); "
        f"print(collect(spec, Path({str(tmp_path / 'both')!r})).sha256)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {one.communicate(timeout=120)[0].strip() for one in running} == {whole.sha256}


@pytest.mark.slow
def test_a_collection_in_processes_is_the_same_and_survives_kill_9(tmp_path, monkeypatch):
    """Whatever the number of processes; killed in the middle it leaves none, and the same call completes it."""
    spec = replace(SPEC, episodes=40)
    whole = collect(spec, tmp_path / "whole")
    slow = partial(Troubled, tmp_path, dict.fromkeys(range(60), "be slow"))
    monkeypatch.setattr(module, "task_info", lambda name: replace(task_info(name), own_process=True))
    monkeypatch.setattr(module, "open_env", lambda task, size: WorkerEnv(slow))
    assert collect(spec, tmp_path / "three", jobs=3).sha256 == whole.sha256
    pid = os.fork()
    if pid == 0:
        collect(spec, tmp_path / "cut", jobs=2)
        os._exit(0)
    index = get_store_path(tmp_path / "cut", spec) / "episodes.jsonl"
    assert wait_until(lambda: index.exists() and index.read_text().count("\n") >= 2)
    workers = running_below(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(workers) >= 2 and wait_until(lambda: not any(is_running(worker) for worker in workers))
    assert 2 <= index.read_text().count("\n") < spec.episodes
    done = [json.loads(line) for line in index.read_text().splitlines()]
    again = collect(spec, tmp_path / "cut", jobs=2)
    assert again.sha256 == whole.sha256 and again.index[: len(done)] == done


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_is_one_error(tmp_path, monkeypatch):
    """Also when it would live in processes of its own: no endless respawning."""
    from muvla.envs import registry
    from muvla.envs.mikasa import MIKASA_TASKS
    from muvla.envs.workers import WorkerEnv

    monkeypatch.setattr("muvla.data.collect.open_env", lambda task, size: WorkerEnv(broken_env))
    assert registry.task_info(next(iter(MIKASA_TASKS))).own_process
    spec = DatasetConfig(task=TaskConfig(next(iter(MIKASA_TASKS))), episodes=3)
    with pytest.raises(MuvlaError) as info:
        collect(spec, tmp_path, jobs=2)
    assert info.value.field == "simulator"


def broken_env():
    raise MuvlaError("simulator", got="nothing", expected="ManiSkill", remedy="run `make sim`")


def test_an_emptied_index_is_named(tmp_path):
    path = collect(SPEC, tmp_path).path
    (path / "episodes.jsonl").write_text("")
    with pytest.raises(MuvlaError) as info:
        EpisodeStore(path)
    assert info.value.field.endswith("episodes.jsonl")


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    path = get_store_path(tmp_path, SPEC)
    writer = EpisodeWriter(path, SPEC)
    writer.append(demonstrate(make_env(TASK), 0, TASK.name))
    real_open = type(path).open

    def full(self, mode="r", *args, **kwargs):
        if self.name == "proprio.bin" and "a" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", full)
        with pytest.raises(MuvlaError) as info:
            writer.append(demonstrate(make_env(TASK), 1, TASK.name))
        assert info.value.field.endswith("proprio.bin")
    assert collect(SPEC, tmp_path).sha256 == collect(SPEC, tmp_path / "whole").sha256


def test_damage_is_named(tmp_path):
    path = collect(SPEC, tmp_path).path
    images = path / "images.bin"
    content = images.read_bytes()
    images.write_bytes(content[:-1])
    with pytest.raises(MuvlaError) as info:
        EpisodeStore(path)
    assert info.value.field.endswith("images.bin")
    images.write_bytes(b"\xff" + content[1:])
    with pytest.raises(MuvlaError) as info:
        EpisodeStore(path).verify()
    assert info.value.field == str(path)
    images.unlink()
    with pytest.raises(MuvlaError) as info:
        EpisodeStore(path)
    assert info.value.field.endswith("images.bin")
    (path / "meta.json").write_text("{")
    with pytest.raises(MuvlaError) as info:
        EpisodeStore(path)
    assert info.value.field.endswith("meta.json")


def test_the_remedy_for_a_broken_description_works(tmp_path):
    """Also where nothing but the description is lost."""
    whole = collect(SPEC, tmp_path)
    for damage in (lambda meta: meta.write_text("{"), lambda meta: meta.unlink()):
        damage(whole.path / "meta.json")
        with pytest.raises(MuvlaError) as info:
            collect(SPEC, tmp_path)
        assert info.value.field.endswith("meta.json")
        shutil.rmtree(whole.path)
        assert collect(SPEC, tmp_path).sha256 == whole.sha256


def test_rows_that_never_reached_the_disk_are_collected_again(tmp_path):
    """A power cut: index lines are there, the end of a column is not."""
    whole = collect(SPEC, tmp_path / "whole")
    path = get_store_path(tmp_path / "cut", SPEC)
    writer = EpisodeWriter(path, SPEC)
    for seed in range(3):
        writer.append(demonstrate(make_env(TASK), seed, TASK.name))
    os.truncate(path / "proprio.bin", (path / "proprio.bin").stat().st_size - 8)
    assert len(EpisodeWriter(path, SPEC).index) == 2
    assert collect(SPEC, tmp_path / "cut").sha256 == whole.sha256


def test_a_damaged_index_is_named_as_such(tmp_path):
    index = collect(SPEC, tmp_path).path / "episodes.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    shorter, broken, swapped = lines[:-1], [lines[0], "{\n", *lines[2:]], [lines[1], lines[0], *lines[2:]]
    for content in (shorter, broken, swapped):
        index.write_text("".join(content))
        with pytest.raises(MuvlaError) as info:
            EpisodeStore(index.parent)
        assert str(index) in info.value.field


def test_episodes_of_two_renderers_are_not_mixed(tmp_path):
    writer = EpisodeWriter(tmp_path / "s", SPEC, "physx_cpu, sapien_cpu")
    writer.append(demonstrate(make_env(TASK), 0, TASK.name))
    with pytest.raises(MuvlaError) as info:
        EpisodeWriter(tmp_path / "s", SPEC, "physx_cpu, sapien_cuda")
    assert info.value.field.endswith("s")
    EpisodeWriter(tmp_path / "s", SPEC, "physx_cpu, sapien_cpu")


def test_unfinished_and_finished_stores_are_told_apart(tmp_path):
    writer = EpisodeWriter(tmp_path / "s", SPEC)
    writer.append(demonstrate(make_env(TASK), 0, TASK.name))
    with pytest.raises(MuvlaError) as info:
        EpisodeStore(tmp_path / "s")
    assert info.value.field.endswith("s")
    writer.seal(attempts=1)
    with pytest.raises(MuvlaError) as info:
        EpisodeWriter(tmp_path / "s", SPEC)
    assert info.value.field.endswith("s")


def test_nan_and_other_shapes_are_refused(tmp_path):
    writer = EpisodeWriter(tmp_path / "s", SPEC)
    episode = demonstrate(make_env(TASK), 0, TASK.name)
    episode.executed_action[0] = np.nan
    with pytest.raises(MuvlaError) as info:
        writer.append(episode)
    assert info.value.field == "episode executed_action"
    writer.append(demonstrate(make_env(TASK), 1, TASK.name))
    with pytest.raises(MuvlaError) as info:
        writer.append(demonstrate(make_env(TASK, 64), 2, TASK.name))
    assert info.value.field == "episode"
    with pytest.raises(MuvlaError) as info:
        EpisodeWriter(tmp_path / "empty", SPEC).seal(attempts=3)
    assert info.value.field.endswith("empty")


def test_failed_demonstrations_are_counted_not_kept(tmp_path, monkeypatch):
    def unlucky(env, seed, task):
        episode = demonstrate(env, seed, task)
        episode.info["success"] = seed % 2 == 0
        return episode

    monkeypatch.setattr(module, "demonstrate", unlucky)
    store = collect(SPEC, tmp_path)
    assert [line["seed"] for line in store.index] == [0, 2, 4, 6, 8] and store.attempts == 9


def test_an_expert_that_hardly_ever_succeeds_is_refused(tmp_path, monkeypatch):
    def hopeless(env, seed, task):
        episode = demonstrate(env, seed, task)
        episode.info["success"] = seed == 3
        return episode

    monkeypatch.setattr(module, "demonstrate", hopeless)
    with pytest.raises(MuvlaError) as info:
        collect(SPEC, tmp_path)
    assert info.value.field == "data.dataset.task"


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_simulator_that_dies_is_no_failed_demonstration(tmp_path, monkeypatch, deaths):
    """Its episode runs once more, so the dataset is the same; dying again is an error, and a rerun continues."""
    whole = collect(SPEC, tmp_path / "whole")
    died = []

    def dies(env, seed, task):
        if seed == 2 and len(died) < deaths:
            died.append(seed)
            raise WorkerError("the environment's process died (exit code -11, SIGSEGV)")
        return demonstrate(env, seed, task)

    monkeypatch.setattr(module, "demonstrate", dies)
    if deaths == 2:
        with pytest.raises(MuvlaError) as info:
            collect(SPEC, tmp_path / "cut")
        assert info.value.field == "data.dataset.task" and "seed 2" in info.value.got
    assert collect(SPEC, tmp_path / "cut").sha256 == whole.sha256


def test_statistics_are_of_executed_steps_and_round_trip(store):
    statistics = Statistics.from_store(store)
    executed = np.asarray(store["executed_action"], dtype=np.float64)
    assert np.allclose(statistics.action_low, np.quantile(executed, 0.01, axis=0))
    assert np.allclose(statistics.action_high, np.quantile(executed, 0.99, axis=0))
    inside = np.clip(executed, statistics.action_low, statistics.action_high).astype(np.float32)
    there_and_back = statistics.unnormalise_action(statistics.normalise_action(inside))
    np.testing.assert_allclose(there_and_back, inside, atol=1e-6)
    assert np.abs(statistics.normalise_action(np.full((1, 2), 9.0, np.float32))).max() == 1, "clipped"


def test_a_constant_dimension_stays_constant():
    """MIKASA's rotations, for instance, are never commanded."""
    statistics = Statistics((0.0, 0.5), (1.0, 0.5), (0.0,), (0.0,), (True, True), "")
    assert statistics.normalise_action(np.array([[1.0, 0.5], [0.0, 7.0]])).tolist() == [[1, -1], [-1, -1]]
    assert statistics.unnormalise_action(np.array([[1.0, 0.9]])).tolist() == [[1, 0.5]]
    assert statistics.normalise_proprio(np.array([3.0])).tolist() == [-1]


def test_statistics_are_shared_by_all_label_variants(store, cell_with):
    from muvla.training.trainer import Trainer

    found = {Trainer(cell_with({"data.labels": k}), store).statistics for k in ("executed", "recorded", "masked")}
    assert len(found) == 1


@pytest.mark.slow
def test_a_stream_holds_nothing_that_grows_with_the_frames(tmp_path, store):
    """Of two million frames (their files are holes) windows are read with a few bytes per frame at most."""
    frames, episodes = 2_000_000, 2_000
    meta = json.loads((store.path / "meta.json").read_text())
    meta["spec"]["episodes"] = episodes
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    lines = [store.index[0] | {"start": i * 1000, "length": 1000} for i in range(episodes)]
    (tmp_path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in COLUMNS:
        with (tmp_path / f"{name}.bin").open("wb") as handle:
            handle.truncate(frames * store[name][0].nbytes)
    large, statistics = EpisodeStore(tmp_path), Statistics.from_store(store)
    large.is_executed  # noqa: B018 (a byte per frame, made once)
    for order, bytes_per_frame in (("episodic", 1), ("grouped", 1), ("shuffled", 4 * 4 + 16)):
        data = DataConfig(SPEC, order=order)
        tracemalloc.start()
        stream = SlotStream(large, data, statistics, built_in_text, slots=4, chunk=2, seed=0)
        for _ in range(3):
            stream.window(8)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < frames * bytes_per_frame + 2**21, (order, peak)


def built_in_text(instructions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(len(instructions), 4, dtype=torch.int64), torch.full((len(instructions),), 4)


def test_statistics_are_taken_a_dimension_at_a_time():
    """Bit for bit those of whole columns in double precision, which are never held."""
    rng, frames = np.random.default_rng(0), 40_000
    columns = {name: rng.standard_normal((frames, 8), np.float32) for name in ("executed_action", "proprio")}
    columns["executed_action"][rng.random(frames) < 0.3] = 0

    class Columns(dict):
        knows_executed, pass_through, sha256 = True, (), "content"

    tracemalloc.start()
    found = Statistics.from_store(Columns(columns))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * frames * 8, "less than one column's worth"
    for name, told in (("executed_action", "action"), ("proprio", "proprio")):
        whole = columns[name].astype(np.float64)
        assert getattr(found, f"{told}_low") == tuple(np.quantile(whole, 0.01, axis=0).tolist())
        assert getattr(found, f"{told}_high") == tuple(np.quantile(whole, 0.99, axis=0).tolist())
        assert getattr(found, f"{told}_mean") == tuple(whole.mean(axis=0).tolist())
        assert getattr(found, f"{told}_std") == tuple(whole.std(axis=0).tolist())
