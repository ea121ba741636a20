"""The actor of a rollout whose policy another process serves.

Time-outs, broken answers and refusals end the episode's attempt. The rollout plays the episode once more, and then
writes an error row.

Legend: H chunk, A action dim.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import aiohttp
import numpy as np

from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.errors import MuvlaError
from muvla.evaluation.actor import Actor, Tick
from muvla.evaluation.checks import get_attribute
from muvla.evaluation.ensemble import combine_chunks
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.jpeg import compress
from muvla.evaluation.protocol import Protocol
from muvla.serving.clients import Query, Wire
from muvla.serving.refusal import BrokenAnswer
from muvla.serving.remote_server import Connections, RemoteServer


class RemoteActor(Actor):
    """Asks a policy server, with one connection for each episode that runs."""

    def __init__(self, server: RemoteServer, protocol: Protocol):
        super().__init__(protocol, protocol.slots)
        self.server = server
        self._connections = Connections()
        self._wires: dict[int, Wire] = {}
        self._chunks: dict[int, deque[np.ndarray]] = {}
        self._action_dim = 0

    def require_fit(self, env: WorkerEnv | LocalEnv) -> None:
        self._action_dim = get_attribute(env, "action_space").shape[0]
        expected = self.server.config.get("action", self._action_dim)
        if expected != self._action_dim:
            raise MuvlaError(
                "protocol.task",
                got=f"a task with {self._action_dim} action numbers",
                expected=f"{expected}, as the server's policy has them",
                remedy="evaluate on a task of the robot that the policy was trained for",
            )

    def needs_query(self, episode: RunningEpisode) -> bool:
        return self.protocol.tick == "env_step" or self._is_used_up(episode)

    def _is_used_up(self, episode: RunningEpisode) -> bool:
        return episode.chunk is None or episode.chunk_age >= self.protocol.h

    def act(self, episodes: Sequence[RunningEpisode], ready: Sequence[RunningEpisode]) -> list[Tick]:
        async def ask_all() -> list[np.ndarray | str]:
            return await asyncio.gather(*(self._ask(episode) for episode in ready))

        for episode, answer in zip(ready, self._connections.run(ask_all), strict=True):
            if isinstance(answer, str):
                episode.failure = answer
            else:
                self._take(episode, answer)
        return []

    async def _ask(self, episode: RunningEpisode) -> np.ndarray | str:
        """The server's actions (n, A), or why there are none."""
        try:
            async with asyncio.timeout(self.server.timeout):
                wire = self._wires.get(episode.index)
                if wire is None:
                    wire = self._wires[episode.index] = self.server.connection()
                    await wire.connect()
                query = self._query(episode)
                if episode.is_first:
                    await wire.begin(query)
                actions = await wire.ask(query)
        except TimeoutError:
            failure = f"no answer in {self.server.timeout:g} seconds"
        except (aiohttp.ClientError, OSError, BrokenAnswer) as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            if actions.shape[1] == self._action_dim:
                return actions
            failure = f"an action of {actions.shape[1]} numbers; the task takes {self._action_dim}"
        wire = self._wires.pop(episode.index, None)
        if wire is not None:
            await wire.close()
        return f"policy server: {failure}"

    def _query(self, episode: RunningEpisode) -> Query:
        images = episode.observation["images"]
        if self.protocol.jpeg is not None:
            images = compress(images, self.protocol.jpeg)
        return Query(
            images,
            self.server.camera_names(len(images)),
            np.asarray(episode.observation["proprio"], dtype=np.float32),
            episode.info["instruction"],
            episode.step,
            episode.seed,
            self.protocol.task.name,
        )

    def _take(self, episode: RunningEpisode, actions: np.ndarray) -> None:
        if episode.is_first:
            self._chunks[episode.index] = deque(maxlen=self.protocol.horizon)
        episode.is_first = False
        self._require_long_enough(len(actions))
        if self.protocol.regime == "ensemble":
            chunks = self._chunks[episode.index]
            chunks.append(actions)
            episode.chunk, episode.chunk_age = combine_chunks(list(chunks), self.protocol.alpha)[None], 0
            episode.chunk = episode.chunk.astype(np.float32)
        elif self._is_used_up(episode):
            episode.chunk, episode.chunk_age = actions, 0

    def _require_long_enough(self, count: int) -> None:
        protocol = self.protocol
        needed = protocol.h if protocol.beyond == "refuse" else 1
        field = "protocol.h"
        if protocol.regime == "ensemble":
            field, needed = "protocol.horizon", protocol.horizon
        if count < needed:
            raise MuvlaError(
                field,
                got=f"{needed}, and a server whose answers have {count} actions",
                expected="at most the actions of an answer",
                remedy=f"start the server with longer answers (`muvla serve --regime chunk --h {needed}`), or choose a "
                "receding protocol",
            )

    def check_episode(self, episode: RunningEpisode) -> None:
        wire = self._wires.get(episode.index)
        if wire is not None:
            self._connections.run(lambda: _end(wire))

    def close(self) -> None:
        async def close_all() -> None:
            await asyncio.gather(*(wire.close() for wire in self._wires.values()), return_exceptions=True)

        self._connections.run(close_all)
        self._connections.close()


async def _end(wire: Wire) -> None:
    """Say that the episode has ended. A server that is gone is noticed at the next episode."""
    try:
        async with asyncio.timeout(1):
            await wire.end()
    except (TimeoutError, aiohttp.ClientError, OSError):
        await wire.close()
