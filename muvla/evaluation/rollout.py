"""Closed-loop episodes of a recurrent policy, many slots in one forward pass, memory by slot.

Legend: B slots, V cameras, h×w image, Q proprio dim, H chunk, A action dim, m memory, D width.

The batch shape never changes during a run, and a slot's numbers do not depend on the other slots or on its index; so an
episode's row is the same whoever shares its batch (tests/test_batching.py), and however many environments there are: a
slot without one computes along.

The policy serves the slots that are ready. It waits for the others as long as it would take to serve: a slow
environment holds nobody up for longer, and fast ones share a forward pass. That depends on the clock; no row does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from muvla.data.normalization import Statistics
from muvla.envs.phases import Phase, events
from muvla.envs.workers import LocalEnv, WorkerEnv, WorkerLost, close_all, wait_any
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.checks import describe, get_attribute, require_event, require_fit, require_sense
from muvla.evaluation.episode import Outcome, RunningEpisode, executable
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.protocol import Protocol
from muvla.interventions.base import Intervention
from muvla.models.policy import Encoded, Policy, leak_test
from muvla.recurrence import Moment, Recurrence


class Rollout:
    """Runs a protocol's episodes with one policy and one intervention, in `environments` environments side by side, one
    per slot if it is not told and at most that many. With `branches`, shared by rollouts of one policy, episodes begin
    where the intervention does, where that is possible."""

    def __init__(
        self,
        policy: Policy,
        statistics: Statistics,
        protocol: Protocol,
        make_env: Callable[[], gymnasium.Env],
        intervention: Intervention | None = None,
        environments: int | None = None,
        branches: PrefixCache | None = None,
    ):
        if protocol.h > policy.config.chunk and protocol.beyond == "refuse":
            raise MuvlaError(
                "protocol.h",
                got=protocol.h,
                expected=f"at most the policy's chunk H = {policy.config.chunk}",
                remedy="train with a longer chunk, or choose another protocol, for instance one with beyond=hold_last",
            )
        self.policy, self.statistics, self.protocol = policy.eval(), statistics, protocol
        self.device = next(policy.parameters()).device
        self.recurrence = Recurrence(policy, protocol.slots, intervention)
        self.intervention, self.branches = intervention, branches and branches.of(protocol.hash)
        self.slots = [RunningEpisode() for _ in range(protocol.slots)]
        self.ticks, self._tick_seconds = 0, 0.0
        self._leak_tested = False
        self._open(make_env, environments)

    def _open(self, make_env: Callable[[], gymnasium.Env], environments: int | None) -> None:
        """All of them, or none."""
        try:
            for slot in self.slots[:environments]:
                env = make_env()
                slot.env = env if isinstance(env, WorkerEnv) else LocalEnv(env)
            self._require_fit(self.slots[0].env)
            # What the environments tell of themselves, for provenance; empty where no simulator is involved.
            self.simulator: dict[str, Any] = get_attribute(self.slots[0].env, "provenance", {})
        except BaseException:
            self.close()
            raise

    def _require_fit(self, env: WorkerEnv | LocalEnv) -> None:
        require_fit(self.policy, env)
        require_sense(self.intervention, self.policy, env, self.protocol)

    @torch.no_grad()
    def run(self, seeds: Iterable[int], on_outcome: Callable[[Outcome], None]) -> None:
        """Every seed's episode once; outcomes come as episodes end. An episode that lost its worker, by a death or a
        hang, is run once more. Raises NotAMeasurement when an invariant breaks."""
        waiting, serve_at = iter(seeds), math.inf
        for slot in self.slots:
            if slot.env is not None:
                self._next_episode(slot, waiting)
        while running := [slot for slot in self.slots if slot.seed is not None]:
            ready, busy = [s for s in running if not s.asked], [s for s in running if s.asked]
            now = time.perf_counter()
            if ready and (not busy or now >= serve_at):
                self._tick(ready)
                for slot in ready:
                    self._start_step(slot)
                serve_at, self._tick_seconds = math.inf, time.perf_counter() - now
                continue
            if ready and serve_at == math.inf:
                serve_at = now + self._patience
            wait_any([slot.env for slot in busy], max(0.0, serve_at - now))
            for slot in busy:
                if slot.env.answered():
                    self._take_answer(slot, waiting, on_outcome)

    @property
    def _patience(self) -> float:
        """Seconds that ready slots wait for the others: then waiting has cost no more than serving twice."""
        return self._tick_seconds

    @property
    def most_numbers(self) -> float:
        """That the chunks of all episodes can have."""
        limit = self.protocol.step_limit or get_attribute(self.slots[0].env, "step_limit", None) or math.inf
        return self.protocol.episodes * limit * self.policy.config.chunk * self.policy.interface.action_dim

    def close(self) -> None:
        close_all([slot.env for slot in self.slots if slot.env is not None])

    def _tick(self, ready: list[RunningEpisode]) -> None:
        """One model call for all slots; those that are not ready keep their memory."""
        due = torch.tensor([slot in ready for slot in self.slots], device=self.device)
        if self.branches:
            self._keep_places()
        encoded = self._encode()
        is_first = torch.tensor([slot.is_first for slot in self.slots], device=self.device)
        moment = Moment(
            [slot.step for slot in self.slots],
            [slot.info.get("phase", Phase.UNKNOWN) for slot in self.slots],
            [f"{self.protocol.task.name}:{slot.seed}" for slot in self.slots],
            [slot.seed or 0 for slot in self.slots],
            donor=[slot.donor and slot.donor.state(slot.step) for slot in self.slots],
            events=[events(slot.info) for slot in self.slots],
        )
        if not self._leak_tested:
            leak_test(self.policy, encoded, self.recurrence.memory.read(self.recurrence.state))
            self._leak_tested = True
        calls = self.policy.calls
        output, tokens = self.recurrence.tick(encoded, is_first, moment, None if due.all() else due)
        if self.policy.calls != calls + 1:
            raise NotAMeasurement(
                "memory",
                got=f"{self.policy.calls - calls} model calls in one tick",
                expected="1",
                remedy="report this as a bug",
            )
        self.ticks += 1
        expected = (len(self.slots), self.policy.config.chunk, self.policy.interface.action_dim)
        if tuple(output.actions.shape) != expected:
            raise NotAMeasurement(
                "action",
                got=f"shape {tuple(output.actions.shape)}",
                expected=f"(slots, chunk, numbers) {expected}",
                remedy="report this as a bug of the policy",
            )
        actions = output.actions.float().cpu().numpy()
        for i, slot in enumerate(self.slots):
            if not due[i]:
                continue
            self._watch_memory(slot, tokens[i])
            slot.is_first = False
            slot.reads, slot.fired = slot.reads + 1, self.recurrence.fired[i]
            slot.ticks.append((slot.step, actions[i]))
            if slot.chunk is None or slot.chunk_age >= self.protocol.h:
                slot.chunk, slot.chunk_age = self.statistics.unnormalise_action(actions[i]), 0
            self._ticked(i, slot, actions[i])

    def _keep_places(self) -> None:
        """Of the slots that are about to tick, where no intervention has acted so far."""
        for i, slot in enumerate(self.slots):
            if slot.seed is not None and not slot.asked and slot.fired == 0:
                self.branches.keep(slot, {name: leaf[i] for name, leaf in self.recurrence.state.items()})

    def _ticked(self, index: int, slot: RunningEpisode, chunk: np.ndarray) -> None:
        """For those who keep what happens: slot `index` has had its tick, whose chunk (H, A) is normalised and whose
        tokens (m, D) are `slot.tokens`; `self.recurrence` holds what was written."""

    def _is_due(self, slot: RunningEpisode) -> bool:
        """Whether the model is called before its next step; not so while a chunk lasts and memory ticks by call."""
        return self.protocol.tick == "env_step" or slot.chunk is None or slot.chunk_age >= self.protocol.h

    def _encode(self) -> Encoded:
        idle = next(slot for slot in self.slots if slot.observation is not None)
        shown = [slot if slot.observation is not None else idle for slot in self.slots]
        images = torch.from_numpy(np.stack([self._images(slot) for slot in shown])).movedim(-1, -3)
        proprio = np.stack([slot.observation["proprio"] for slot in shown])
        if self.policy.proprio:  # else it may have no scale
            proprio = self.statistics.normalise_proprio(proprio)
        instructions = [slot.info["instruction"] for slot in shown]
        ids, lengths = self.policy.encode_text(instructions)
        return self.policy.encode(
            images.to(self.device),
            torch.from_numpy(proprio).to(self.device),
            ids.to(self.device),
            lengths.to(self.device),
        )

    def _images(self, slot: RunningEpisode) -> np.ndarray:
        """(V, h, w, 3), the images that the policy was trained with."""
        first, interface = [slot.first_image] * self.policy.interface.first_image, self.policy.interface
        return np.concatenate([slot.observation["images"][: interface.cameras - len(first)], *first])

    def _watch_memory(self, slot: RunningEpisode, tokens: Tensor) -> None:
        """Finite at every tick; over the episode moved, or frozen where it was to be frozen (checked at its end)."""
        if not torch.isfinite(tokens).all():
            raise NotAMeasurement(
                "memory",
                got=f"NaN or infinity at step {slot.step} of episode seed {slot.seed}",
                expected="finite",
                remedy="the cell has no result; look at its training log",
            )
        # From the second tick on: a frozen memory may differ from the initial one that was read at the first. Or from
        # the second one at which an intervention acted that does not always act.
        kind = self.intervention
        if (slot.reads if kind is None or kind.schedule is None else slot.fired) >= 2:
            there = slice(*kind.tokens) if kind is not None and kind.tokens else slice(None)
            slot.moved |= bool((tokens[there] != slot.tokens[there]).any())
            slot.compared = True
        slot.tokens = tokens

    def _check_episode(self, slot: RunningEpisode) -> None:
        """Memory writes == ticks that the environment's steps ask for; and the memory moved, or was frozen, as it had
        to."""
        per_query = self.protocol.h if self.protocol.tick == "call" else 1
        expected = math.ceil(slot.step / per_query)
        writes = self.recurrence.writes[self.slots.index(slot)]
        if writes != expected:
            raise NotAMeasurement(
                "memory",
                got=f"{writes} writes in {slot.step} steps of episode seed {slot.seed}",
                expected=f"{expected} at tick {self.protocol.tick}",
                remedy="report this as a bug",
            )
        memory, kind = self.recurrence.memory, self.intervention
        effect = kind.effect if kind else "keeps"
        if memory.width == 0 or not slot.compared or effect == "any" or (kind and not kind.uninterrupted):
            return
        if effect == "keeps":
            effect = "moves" if memory.recurrent else "freezes"
        if slot.moved != (effect == "moves"):
            raise NotAMeasurement(
                "memory",
                got="moved" if slot.moved else "frozen",
                expected=f"a memory that {effect} under intervention {kind and kind.name}",
                remedy="the cell has no result; look at the intervention or the update rule",
            )

    def _start_step(self, slot: RunningEpisode) -> None:
        phase = slot.info["phase"]
        if phase is Phase.DECISION and slot.first_decision is None:
            slot.first_decision = slot.step
        slot.action = executable(slot.next_action, slot)
        slot.asked = True
        slot.env.start_step(slot.action)

    def _take_answer(self, slot: RunningEpisode, waiting: Iterator[int], on_outcome: Callable[[Outcome], None]) -> None:
        """To a reset or to a step; starts what needs no tick before: a chunk's next action, the next episode."""
        slot.asked = False
        try:
            answer = slot.env.finish()
        except MuvlaError:  # a broken installation, not a broken episode
            raise
        except Exception as error:
            if isinstance(error, WorkerLost) and slot.lost is None:
                self._begin(slot, slot.seed, str(error))
                return
            before = f"; at first: {slot.lost}" if slot.lost else ""
            on_outcome(self._outcome(slot, {}, describe(error) + before))
            self._next_episode(slot, waiting)
            return
        slot.environment_seconds += slot.env.seconds
        if slot.observation is None:
            slot.observation, slot.info = answer
            slot.first_image = slot.observation["images"][:1].copy()
            self._require_decision(slot)
            require_event(self.intervention, slot.info, self.protocol.task.name)
            self._receive(slot)
        elif self._is_over(slot, answer):
            self._check_episode(slot)
            on_outcome(self._outcome(slot, self._measured(slot)))
            self._next_episode(slot, waiting)
        elif not self._is_due(slot):
            self._start_step(slot)

    def _is_over(self, slot: RunningEpisode, answer: tuple) -> bool:
        slot.observation, _, terminated, truncated, slot.info = answer
        slot.chunk_age += 1
        slot.step += 1
        if slot.choice == -1:
            slot.choice = slot.info["choice"]
        if slot.info["success"] and slot.first_success is None:
            slot.first_success = slot.step
        limit = self.protocol.step_limit
        stop = slot.info["success"] and self.protocol.break_at_success
        return terminated or truncated or stop or (limit is not None and slot.step >= limit)

    def _require_decision(self, slot: RunningEpisode) -> None:
        """Raises MuvlaError if the protocol ends the episode before it can be decided: it would measure nothing."""
        phases = events(slot.info).get("first_decision", 0)
        for name, limit in (("", self.protocol.step_limit), ("task.", self.protocol.task.step_limit)):
            if limit is not None and limit <= phases:
                raise MuvlaError(
                    f"protocol.{name}step_limit",
                    got=limit,
                    expected=f"more than the {phases} steps before the decision of episode seed {slot.seed}",
                    remedy="raise it, or shorten the phases (task.cue, task.delay)",
                )

    def _measured(self, slot: RunningEpisode) -> dict[str, Any]:
        given = slot.donor is not None and slot.fired  # what was never given is nobody's
        return {
            "target": slot.info["target"],
            "choice": slot.choice,
            "blank_length": slot.info.get("blank_length"),
            "cue_length": slot.info["cue_length"],
            "delay_length": slot.info["delay_length"],
            "first_decision_step": slot.first_decision,
            "success_once": slot.first_success is not None,
            "success_at_end": bool(slot.info["success"]),
            "first_success_step": slot.first_success,
            "steps": slot.step,
            "fired": slot.fired if self.intervention else None,
            "donor_seed": slot.donor.seed if given else None,
            "donor_target": slot.donor.target if given else None,
        }

    @staticmethod
    def _outcome(slot: RunningEpisode, info: dict[str, Any], error: str | None = None) -> Outcome:
        attempts = 1 + (slot.lost is not None)
        return Outcome(
            slot.seed,
            info,
            error,
            attempts,
            time.perf_counter() - slot.started,
            slot.environment_seconds,
            tuple(slot.ticks),
            slot.info.get("identity"),
        )

    def _next_episode(self, slot: RunningEpisode, waiting: Iterator[int]) -> None:
        seed = next(waiting, None)
        if seed is not None:
            self._begin(slot, seed)
        else:
            slot.seed, slot.is_first = None, True

    def _begin(self, slot: RunningEpisode, seed: int, lost: str | None = None) -> None:
        fresh = RunningEpisode(slot.env, seed, lost, asked=True, started=time.perf_counter())
        slot.__dict__.update(fresh.__dict__)
        if self.branches and self.intervention:
            index = self.slots.index(slot)
            if self.branches.put(slot, index, seed, self.intervention, self.recurrence):
                self._receive(slot)
                return
        slot.env.start_reset(seed)

    def _receive(self, slot: RunningEpisode) -> None:
        """What the episode is given by others; raises MuvlaError if there is none that can give."""
        if self.intervention and self.intervention.bank:
            slot.donor = self.intervention.bank.gift(slot.seed, slot.info)
