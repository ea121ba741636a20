"""Demonstrations by the scripted experts.

A dataset is a function of its DatasetConfig alone, up to the pixels of a simulator's renderer. The store records the
renderer, and a dataset never mixes two renderers.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

import gymnasium
import numpy as np

from muvla.config import DatasetConfig
from muvla.data.store import Episode, EpisodeStore, EpisodeWriter, get_store_path, is_sealed, open_store
from muvla.envs.registry import backends, find_suite, open_env, task_info
from muvla.envs.workers import WorkerError
from muvla.errors import MuvlaError
from muvla.utils.code_version import CODE_VERSION, member_versions
from muvla.utils.devices import usable_cores
from muvla.utils.locks import locked

TRIES = 2  # runs of an episode whose simulator process dies, the second in a fresh process
# An expert with less success is broken, and its successes would be a selection of easy episodes.
LOWEST_SUCCESS = 0.2


def collect(
    spec: DatasetConfig,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    jobs: int | None = None,
) -> EpisodeStore:
    """Returns the dataset of `spec` under `root`: opened if it exists, continued if it was interrupted, else collected.

    Seeds count up from `spec.seed`. The first `spec.episodes` successful demonstrations are kept in seed order,
    whatever `jobs` is. A second call for the same dataset waits for the first. A dataset with a source is opened, never
    collected.

    Args:
        spec: task, number of episodes, first seed and image size.
        root: folder of all datasets.
        progress: called with (episodes kept, episodes to keep).
        jobs: simulator processes; one per core by default.

    Raises:
        MuvlaError: the simulator cannot run, the task has no expert, the expert hardly ever succeeds, or an import
            is missing.
    """
    path = get_store_path(root, spec)
    if spec.source is not None or is_sealed(path):
        return open_store(root, spec)
    if not task_info(spec.task.name).expert:
        raise MuvlaError(
            "data.dataset.task.name",
            got=spec.task.name,
            expected="a task with a scripted expert",
            remedy="import demonstrations of the task (`muvla data import`), or choose another task",
        )
    with locked(path / "lock", wait=True):
        if not is_sealed(path):  # the previous holder of the lock may have finished the dataset
            conventions = task_info(spec.task.name).conventions
            suite, _ = find_suite(spec.task.name)
            collected = {"code": CODE_VERSION, "members": member_versions([type(suite).__module__])}
            writer = EpisodeWriter(path, spec, backends(spec.task), conventions=conventions, collected=collected)
            _write(writer, progress, jobs or usable_cores())
    return EpisodeStore(path)


def demonstrate(env: gymnasium.Env, seed: int, task: str) -> Episode:
    """Runs one episode with the environment's expert and cuts it at its first success, as in the published data (spec
    4.4).

    Frame t holds the observation, the expert's action for it (`recorded_action`) and the action that the simulator
    applied (`executed_action`).
    """
    observation, info = env.reset(seed=seed)
    frames: dict[str, list] = {"images": [], "proprio": [], "executed_action": [], "recorded_action": [], "phase": []}
    over = False
    while not over:
        frames["images"].append(observation["images"])
        frames["proprio"].append(observation["proprio"])
        frames["recorded_action"].append(info["expert_action"])
        frames["phase"].append(int(info["phase"]))
        observation, _, terminated, truncated, info = env.step(info["expert_action"])
        frames["executed_action"].append(info["executed_action"])
        over = terminated or truncated or info["success"]
    about = {name: info[name] for name in ("instruction", "target", "cue_length", "delay_length")}
    about |= {name: info[name] for name in ("targets", "cued", "update_step") if name in info}
    about |= {"blank_length": info["blank_length"]} if info.get("blank_length") else {}
    return Episode(
        **{name: np.stack(column) for name, column in frames.items()},
        info={"task": task, "seed": seed, "success": bool(info["success"]), **about},
    )


def _write(writer: EpisodeWriter, progress: Callable[[int, int], None], jobs: int) -> None:
    spec, count = writer.spec, writer.spec.episodes
    following = writer.index[-1]["seed"] + 1 if writer.index else spec.seed
    attempts = following - spec.seed
    if len(writer.index) < count:
        episodes = _demonstrations(spec, following, jobs)
        try:
            for episode in episodes:
                attempts += 1
                if episode.info["success"]:
                    writer.append(episode)
                    progress(len(writer.index), count)
                    if len(writer.index) == count:
                        break
                _check_success(spec, len(writer.index), attempts)
        finally:
            episodes.close()
    writer.seal(attempts)


def _check_success(spec: DatasetConfig, kept: int, attempts: int) -> None:
    if attempts >= 20 and kept < LOWEST_SUCCESS * attempts:
        raise MuvlaError(
            "data.dataset.task",
            got=f"{kept} successes in {attempts} attempts of the expert on {spec.task.name}",
            expected=f"a success rate of at least {LOWEST_SUCCESS}",
            remedy="check the expert with these settings of the task",
        )


def _demonstrations(spec: DatasetConfig, first_seed: int, jobs: int) -> Iterator[Episode]:
    """Yields the episodes of `first_seed`, `first_seed + 1`, … endlessly, in this order, from parallel simulators."""
    jobs = jobs if task_info(spec.task.name).own_process else 1
    envs = [open_env(spec.task, spec.image_size) for _ in range(jobs)]
    free: queue.SimpleQueue[gymnasium.Env] = queue.SimpleQueue()
    for env in envs:
        free.put(env)

    def run_on_any(seed: int) -> Episode:
        env = free.get()
        try:
            return _try(env, seed, spec.task.name)
        finally:
            free.put(env)

    seeds = count(first_seed)
    with ThreadPoolExecutor(jobs) as pool:
        # One more episode than simulators is under way, so that no simulator waits for the disk.
        waiting: deque[Future[Episode]] = deque(pool.submit(run_on_any, next(seeds)) for _ in range(jobs + 1))
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(pool.submit(run_on_any, next(seeds)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for env in envs:
                env.close()


def _try(env: gymnasium.Env, seed: int, task: str, tries: int = TRIES) -> Episode:
    """Runs an episode, and runs it again if the simulator dies: a crash is no failed demonstration.

    So the dataset does not depend on crashes.
    """
    try:
        return demonstrate(env, seed, task)
    except WorkerError as error:
        if tries > 1:
            return _try(env, seed, task, tries - 1)
        raise MuvlaError(
            "data.dataset.task",
            got=f"{task}, seed {seed}: {error}",
            expected="an episode",
            remedy="run the same command again; it continues with this episode",
        ) from error
