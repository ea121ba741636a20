"""The event loop of closed-loop episodes: an actor, environments side by side, recorders.

The loop serves the episodes that are ready. It waits for the others as long as serving takes: a slow environment
delays nobody for longer, and fast environments share a forward pass. Waiting depends on the clock; no row does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import gymnasium

from muvla.envs.phases import Phase, events
from muvla.envs.workers import LocalEnv, WorkerEnv, WorkerLost, close_all, wait_any
from muvla.errors import MuvlaError
from muvla.evaluation.actor import Actor
from muvla.evaluation.checks import describe, get_attribute
from muvla.evaluation.episode import Outcome, RunningEpisode, executable
from muvla.evaluation.recorder import Recorder


class Rollout:
    """Runs episodes of the actor's protocol.

    Args:
        actor: chooses the actions. The rollout closes it.
        make_env: opens one environment.
        recorders: store data about the episodes, and change nothing.
        environments: how many step side by side; at most, and by default, one per slot of the actor. No row depends
            on the number.
        patience: seconds that ready episodes wait for the others. By default as long as serving takes: waiting has
            then cost no more than serving twice.

    Raises:
        MuvlaError: the actor cannot act in the environment, or a recorder cannot record the actor's episodes.
    """

    def __init__(
        self,
        actor: Actor,
        make_env: Callable[[], gymnasium.Env],
        recorders: Sequence[Recorder] = (),
        environments: int | None = None,
        patience: float | None = None,
    ):
        for recorder in recorders:
            if actor.restores and recorder.needs_every_tick:
                raise MuvlaError(
                    "recorders",
                    got=f"{type(recorder).__name__} with an actor that restores episodes",
                    expected="an actor that plays every episode from its first step",
                    remedy="leave out the prefix cache",
                )
        self.actor, self.protocol, self.recorders = actor, actor.protocol, recorders
        self.episodes = [RunningEpisode(index) for index in range(actor.slots)]
        self._fixed_patience, self._serving_seconds = patience, 0.0
        try:
            for episode in self.episodes[:environments]:
                env = make_env()
                episode.env = env if isinstance(env, WorkerEnv) else LocalEnv(env)
            actor.require_fit(self.episodes[0].env)
            # The environment's account of itself, for provenance; empty without a simulator.
            self.simulator: dict[str, Any] = get_attribute(self.episodes[0].env, "provenance", {})
        except BaseException:
            self.close()
            raise

    def run(
        self,
        seeds: Iterable[int],
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Run the episode of every seed once. An episode that lost its worker or its policy server is run once more.

        Args:
            seeds: of the episodes, in the order in which they begin.
            on_outcome: called as episodes end, after the recorders.
            check_stop: called before the actor acts; it may raise to end the run.

        Raises:
            NotAMeasurement: an invariant broke.
            MuvlaError: an environment's installation is broken, or an episode lacks what the actor needs.
        """
        waiting, serve_at = iter(seeds), math.inf
        for episode in list(self.episodes):
            if episode.env is not None:
                self._next_episode(episode, waiting)
        while running := [episode for episode in self.episodes if episode.seed is not None]:
            ready = [episode for episode in running if not episode.is_waiting]
            busy = [episode for episode in running if episode.is_waiting]
            now = time.perf_counter()
            if ready and (not busy or now >= serve_at):
                check_stop()
                self._serve(ready, waiting, on_outcome)
                serve_at, self._serving_seconds = math.inf, time.perf_counter() - now
                continue
            if ready and serve_at == math.inf:
                serve_at = now + (self._serving_seconds if self._fixed_patience is None else self._fixed_patience)
            wait_any([episode.env for episode in busy], max(0.0, serve_at - now))
            for episode in busy:
                if episode.env.answered():
                    self._take_answer(episode, waiting, on_outcome)

    def close(self) -> None:
        """Close the actor and all environments, side by side."""
        self.actor.close()
        close_all([episode.env for episode in self.episodes if episode.env is not None])

    def _serve(
        self, ready: list[RunningEpisode], waiting: Iterator[int], on_outcome: Callable[[Outcome], None]
    ) -> None:
        for tick in self.actor.act(self.episodes, ready):
            for recorder in self.recorders:
                recorder.after_tick(tick)
        for episode in ready:
            if episode.failure is None:
                self._start_step(episode)
            elif episode.lost_worker is None:
                self._begin(episode, episode.seed, episode.failure)
            else:
                error = f"{episode.failure}; at first: {episode.lost_worker}"
                self._end(episode, _outcome(episode, {}, error), waiting, on_outcome)

    def _start_step(self, episode: RunningEpisode) -> None:
        for recorder in self.recorders:
            recorder.before_step(episode)
        if episode.info["phase"] is Phase.DECISION and episode.first_decision is None:
            episode.first_decision = episode.step
        episode.action = executable(episode.next_action, episode)
        episode.is_waiting = True
        episode.env.start_step(episode.action)

    def _take_answer(
        self, episode: RunningEpisode, waiting: Iterator[int], on_outcome: Callable[[Outcome], None]
    ) -> None:
        """Take the answer to a reset or a step. Start whatever needs no actor: a chunk's next action, an episode."""
        episode.is_waiting = False
        try:
            answer = episode.env.finish()
        except MuvlaError:  # a broken installation, not a broken episode
            raise
        except Exception as error:
            if isinstance(error, WorkerLost) and episode.lost_worker is None:
                self._begin(episode, episode.seed, str(error))
                return
            before = f"; at first: {episode.lost_worker}" if episode.lost_worker else ""
            self._end(episode, _outcome(episode, {}, describe(error) + before), waiting, on_outcome)
            return
        episode.environment_seconds += episode.env.seconds
        if episode.observation is None:
            episode.observation, episode.info = answer
            episode.first_images = episode.observation["images"].copy()
            self._require_decision(episode)
            self.actor.begin(episode)
            return
        self._take_step(episode, answer)
        if self._is_over(episode, answer):
            self.actor.check_episode(episode)
            outcome = _outcome(episode, _measured(episode, self.actor.intervention is not None))
            self._end(episode, outcome, waiting, on_outcome)
        elif not self.actor.needs_query(episode):
            self._start_step(episode)

    def _take_step(self, episode: RunningEpisode, answer: tuple) -> None:
        episode.observation, _, _, _, episode.info = answer
        episode.chunk_age += 1
        episode.step += 1
        if episode.choice == -1:
            episode.choice = episode.info["choice"]
        if episode.info["success"] and episode.first_success is None:
            episode.first_success = episode.step
        for recorder in self.recorders:
            recorder.after_step(episode)

    def _is_over(self, episode: RunningEpisode, answer: tuple) -> bool:
        _, _, terminated, truncated, info = answer
        limit = self.protocol.step_limit
        stop = info["success"] and self.protocol.break_at_success
        return terminated or truncated or stop or (limit is not None and episode.step >= limit)

    def _require_decision(self, episode: RunningEpisode) -> None:
        """Raise MuvlaError if the protocol ends the episode before its decision: it would measure nothing."""
        decision = events(episode.info).get("first_decision", 0)
        for name, limit in (("", self.protocol.step_limit), ("task.", self.protocol.task.step_limit)):
            if limit is not None and limit <= decision:
                raise MuvlaError(
                    f"protocol.{name}step_limit",
                    got=limit,
                    expected=f"more than the {decision} steps before the decision of episode seed {episode.seed}",
                    remedy=f"raise {name}step_limit, or shorten the phases (task.cue, task.delay)",
                )

    def _end(
        self,
        episode: RunningEpisode,
        outcome: Outcome,
        waiting: Iterator[int],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        for recorder in self.recorders:
            recorder.episode_ends(episode, outcome)
        on_outcome(outcome)
        self._next_episode(episode, waiting)

    def _next_episode(self, episode: RunningEpisode, waiting: Iterator[int]) -> None:
        seed = next(waiting, None)
        if seed is not None:
            self._begin(episode, seed)
        else:
            episode.seed, episode.is_first = None, True

    def _begin(self, episode: RunningEpisode, seed: int, lost_worker: str | None = None) -> None:
        """Put a new episode into the slot of `episode`, restored at a later step where the actor can do so."""
        fresh = RunningEpisode(
            episode.index, episode.env, seed, lost_worker, is_waiting=True, started=time.perf_counter()
        )
        restored = self.actor.restore(fresh)
        self.episodes[episode.index] = restored or fresh
        for recorder in self.recorders:
            recorder.episode_begins(self.episodes[episode.index])
        if restored:
            self.actor.begin(restored)
        else:
            fresh.env.start_reset(seed)


def _measured(episode: RunningEpisode, intervened: bool) -> dict[str, Any]:
    """The outcome fields of the episode's row."""
    given = episode.donor is not None and episode.fired  # a donor whose state was never used is not a donor
    return {
        "target": episode.info["target"],
        "choice": episode.choice,
        "blank_length": episode.info.get("blank_length"),
        "cue_length": episode.info["cue_length"],
        "delay_length": episode.info["delay_length"],
        "first_decision_step": episode.first_decision,
        "success_once": episode.first_success is not None,
        "success_at_end": bool(episode.info["success"]),
        "first_success_step": episode.first_success,
        "steps": episode.step,
        "fired": episode.fired if intervened else None,
        "donor_seed": episode.donor.seed if given else None,
        "donor_target": episode.donor.target if given else None,
        "choices": list(episode.info["choices"]) if "choices" in episode.info else None,
        "right": episode.info.get("right"),
    }


def _outcome(episode: RunningEpisode, info: dict[str, Any], error: str | None = None) -> Outcome:
    return Outcome(
        seed=episode.seed,
        info=info,
        error=error,
        attempts=1 if episode.lost_worker is None else 2,
        seconds=time.perf_counter() - episode.started,
        environment_seconds=episode.environment_seconds,
        chunks=tuple(episode.chunks),
        identity=episode.info.get("identity"),
    )
