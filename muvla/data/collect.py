"""Demonstrations by the scripted experts, in a dataset that is a function of its DatasetConfig alone, up to the pixels
of a simulator's renderer; which one it was is written beside them, and they are never mixed."""

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
from muvla.data.store import Episode, EpisodeStore, EpisodeWriter, is_sealed, open_store, store_path
from muvla.envs.registry import backends, open_env, task_info
from muvla.envs.workers import WorkerError
from muvla.errors import MuvlaError
from muvla.utils.devices import usable_cores
from muvla.utils.io import locked

TRIES = 2  # of one episode whose simulator process dies, the second one in a fresh process
# An expert that fails more often than this is broken, and what it leaves would be a selection of easy episodes.
LOWEST_SUCCESS = 0.2


def collect(
    spec: DatasetConfig,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    jobs: int | None = None,
) -> EpisodeStore:
    """The dataset of `spec` under `root`: opened if it is there, continued if it was interrupted, else collected.

    Seeds count up from `spec.seed`; the first `spec.episodes` successful demonstrations are kept, in seed order,
    whatever the number of simulator processes `jobs` (default: one per core). A second call for the same dataset waits
    for the first. A dataset with a source is opened; nothing here can make it. Raises MuvlaError for a simulator that
    cannot run, for a task without an expert or one that hardly ever succeeds, and for an import that is not there.
    """
    path = store_path(root, spec)
    if spec.source is not None or is_sealed(path):
        return open_store(root, spec)
    if not task_info(spec.task.name).expert:
        raise MuvlaError(
            "data.dataset.task.name",
            got=spec.task.name,
            expected="a task with a scripted expert",
            remedy="import demonstrations of it (`muvla data import`), or take another task",
        )
    with locked(path / "lock", wait=True):
        if not is_sealed(path):  # by whoever held the lock before
            _write(EpisodeWriter(path, spec, backends(spec.task)), progress, jobs or usable_cores())
    return EpisodeStore(path)


def demonstrate(env: gymnasium.Env, seed: int, task: str) -> Episode:
    """One episode by the environment's own expert, cut at its first success (as the published data are, μVLA spec 4.4).

    Frame t holds the observation, the expert's action for it (`recorded_action`) and what the simulator made of that
    (`executed_action`).
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
    about |= {"blank_length": info["blank_length"]} if info.get("blank_length") else {}
    return Episode(
        **{name: np.stack(column) for name, column in frames.items()},
        info={"task": task, "seed": seed, "success": bool(info["success"]), **about},
    )


def _write(writer: EpisodeWriter, progress: Callable[[int, int], None], jobs: int) -> None:
    spec, wanted = writer.spec, writer.spec.episodes
    following = writer.index[-1]["seed"] + 1 if writer.index else spec.seed
    attempts = following - spec.seed
    if len(writer.index) < wanted:
        episodes = _demonstrations(spec, following, jobs)
        try:
            for episode in episodes:
                attempts += 1
                if episode.info["success"]:
                    writer.append(episode)
                    progress(len(writer.index), wanted)
                    if len(writer.index) == wanted:
                        break
                _check_success(spec, len(writer.index), attempts)
        finally:
            episodes.close()
    writer.seal(attempts)


def _check_success(spec: DatasetConfig, kept: int, attempts: int) -> None:
    if attempts >= 20 and kept < LOWEST_SUCCESS * attempts:
        raise MuvlaError(
            f"demonstrations of {spec.task.name}",
            got=f"{kept} successes in {attempts} attempts",
            expected=f"a share of at least {LOWEST_SUCCESS}",
            remedy="check the expert on this task's settings",
        )


def _demonstrations(spec: DatasetConfig, first_seed: int, jobs: int) -> Iterator[Episode]:
    """The episodes of `first_seed`, `first_seed + 1`, … without end, in this order, several simulators side by side."""
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
        # One more than there are simulators, so that none of them waits for the disk.
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
    """A simulator that dies is no failed demonstration: the episode runs again, so that the dataset stays the same."""
    try:
        return demonstrate(env, seed, task)
    except WorkerError as error:
        if tries > 1:
            return _try(env, seed, task, tries - 1)
        raise MuvlaError(
            f"demonstration of {task}, seed {seed}",
            got=str(error),
            expected="an episode",
            remedy="run the same command again; it continues with this episode",
        ) from error
