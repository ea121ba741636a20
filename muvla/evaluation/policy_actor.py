"""The actor that runs a recurrent policy: one forward pass for all slots, memory by slot.

The batch shape never changes during a rollout, and a slot's numbers do not depend on the other slots or on its index.
So an episode's row is the same whoever shares its batch (tests/test_batching.py), and however many environments there
are: a slot without an environment computes along.

Legend: B slots, V cameras, h×w image, Q proprio dim, H chunk, A action dim, m memory, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from muvla.data.normalization import Statistics
from muvla.data.span import require_span
from muvla.envs.phases import Phase, events
from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.actor import Actor, Tick
from muvla.evaluation.checks import require_applicable, require_event, require_fit
from muvla.evaluation.ensemble import combine_chunks, threshold_gripper
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.jpeg import compress
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.protocol import Protocol
from muvla.interventions.base import Intervention
from muvla.memory.contract import State
from muvla.models.leak_test import leak_test
from muvla.models.policy import Encoded, Policy, StepOutput
from muvla.recurrence import Moment, Recurrence
from muvla.recurrence.watch import all_finite, moved, watched


class PolicyActor(Actor):
    """Acts by one policy under one intervention.

    Args:
        policy: put into evaluation mode.
        statistics: scale of proprioception and actions.
        protocol: h, tick and `slots`, the batch size B.
        intervention: what the memory undergoes; an intervention with donors must have its bank.
        prefixes: shared by rollouts of one policy. Episodes begin where the intervention first acts, if the
            environment can be restored.
    """

    def __init__(
        self,
        policy: Policy,
        statistics: Statistics,
        protocol: Protocol,
        intervention: Intervention | None = None,
        prefixes: PrefixCache | None = None,
    ):
        if protocol.h > policy.config.chunk and protocol.beyond == "refuse":
            raise MuvlaError(
                "protocol.h",
                got=protocol.h,
                expected=f"at most the policy's chunk H = {policy.config.chunk}",
                remedy="train with a longer chunk, or choose another protocol, for instance one with beyond=hold_last",
            )
        if protocol.horizon > policy.config.chunk:
            raise MuvlaError(
                "protocol.horizon",
                got=protocol.horizon,
                expected=f"at most the policy's chunk H = {policy.config.chunk}, and an ensemble needs H ≥ 2",
                remedy="train with a longer chunk, or choose a protocol without an ensemble",
            )
        super().__init__(protocol, protocol.slots, intervention)
        self.policy, self.statistics = policy.eval(), statistics
        self.device = next(policy.parameters()).device
        self.recurrence = Recurrence(policy, protocol.slots, intervention)
        self.prefixes = prefixes and prefixes.of(protocol.hash)
        self.ticks = 0  # model calls so far
        self._leak_tested = False

    @property
    def restores(self) -> bool:
        return self.prefixes is not None

    def require_fit(self, env: WorkerEnv | LocalEnv) -> None:
        require_fit(self.policy, env)
        require_span(self.policy.memory.config, self.protocol.task, self.protocol.id, self.protocol.step_limit)
        require_applicable(self.intervention, self.policy, env, self.protocol)

    def restore(self, episode: RunningEpisode) -> RunningEpisode | None:
        if self.prefixes is None or self.intervention is None:
            return None
        return self.prefixes.restore(episode, self.intervention, self.recurrence)

    def begin(self, episode: RunningEpisode) -> None:
        require_event(self.intervention, episode.info, self.protocol.task.name)
        if self.intervention and self.intervention.bank:
            episode.donor = self.intervention.bank.assign(episode.seed, episode.info)

    def needs_query(self, episode: RunningEpisode) -> bool:
        """False while a chunk lasts and the memory ticks by call."""
        return self.protocol.tick == "env_step" or self._is_used_up(episode)

    def _is_used_up(self, episode: RunningEpisode) -> bool:
        return episode.chunk is None or episode.chunk_age >= self.protocol.h

    @torch.no_grad()
    def act(self, episodes: Sequence[RunningEpisode], ready: Sequence[RunningEpisode]) -> list[Tick]:
        """Call the model once for all slots. Slots that are not ready keep their memory."""
        if self.prefixes:
            self._save_prefixes(episodes)
        encoded = self._encode(episodes)
        if not self._leak_tested:
            leak_test(self.policy, encoded, self.recurrence.state)
            self._leak_tested = True
        output, tokens = self._call(encoded, episodes, ready)
        actions = output.actions.float().cpu().numpy()
        ticks = []
        for i, episode in enumerate(episodes):
            if episode not in ready:
                continue
            self._check_read(episode, watched(self.recurrence, i))
            episode.tokens = tokens[i]
            episode.is_first = False
            episode.reads, episode.fired = episode.reads + 1, self.recurrence.fired[i]
            episode.chunks.append((episode.step, actions[i]))
            if self._is_used_up(episode):
                episode.chunk, episode.chunk_age = self._executed(episode), 0
            written = {name: leaf[i] for name, leaf in self.recurrence.state.items()}
            ticks.append(Tick(episode, actions[i], tokens[i], written))
        return ticks

    def _executed(self, episode: RunningEpisode) -> np.ndarray:
        """The actions to execute, not normalised: the newest chunk (H, A), or the ensemble's action (1, A)."""
        statistics, outputs = self.statistics, self.policy.outputs
        newest = episode.chunks[-self.protocol.horizon :]
        chunks = [statistics.unnormalise_action(chunk, outputs) for _, chunk in newest]
        if self.protocol.regime != "ensemble":
            return chunks[-1]
        chunks = [threshold_gripper(chunk, statistics.action_mask, outputs) for chunk in chunks]
        return combine_chunks(chunks, self.protocol.alpha)[None].astype(np.float32)

    def _call(
        self, encoded: Encoded, episodes: Sequence[RunningEpisode], ready: Sequence[RunningEpisode]
    ) -> tuple[StepOutput, Tensor]:
        """The output and the tokens (B, m, D) read. Raises NotAMeasurement unless the model is called exactly once."""
        due = torch.tensor([episode in ready for episode in episodes], device=self.device)
        is_first = torch.tensor([episode.is_first for episode in episodes], device=self.device)
        calls = self.policy.calls
        output, tokens = self.recurrence.tick(encoded, is_first, self._moment(episodes), None if due.all() else due)
        if self.policy.calls != calls + 1:
            raise NotAMeasurement(
                "memory",
                got=f"{self.policy.calls - calls} model calls in one tick",
                expected="1",
                remedy="report this as a bug",
            )
        self.ticks += 1
        expected = (self.slots, self.policy.config.chunk, self.policy.interface.action_dim)
        if tuple(output.actions.shape) != expected:
            raise NotAMeasurement(
                "action",
                got=f"shape {tuple(output.actions.shape)}",
                expected=f"(slots, chunk, numbers) {expected}",
                remedy="report this as a bug of the policy",
            )
        return output, tokens

    def _moment(self, episodes: Sequence[RunningEpisode]) -> Moment:
        return Moment(
            [episode.step for episode in episodes],
            [episode.info.get("phase", Phase.UNKNOWN) for episode in episodes],
            [f"{self.protocol.task.name}:{episode.seed}" for episode in episodes],
            [episode.seed or 0 for episode in episodes],
            donor=[episode.donor and episode.donor.state(episode.step) for episode in episodes],
            events=[events(episode.info) for episode in episodes],
            time=[episode.reads for episode in episodes] if self.protocol.clock == "call" else None,
        )

    def _save_prefixes(self, episodes: Sequence[RunningEpisode]) -> None:
        """Save the episodes that are about to tick, as long as no intervention has acted in them."""
        for i, episode in enumerate(episodes):
            if episode.seed is not None and not episode.is_waiting and episode.fired == 0:
                self.prefixes.save(episode, {name: leaf[i] for name, leaf in self.recurrence.state.items()})

    def _encode(self, episodes: Sequence[RunningEpisode]) -> Encoded:
        """Encode (B, …) frames. A slot without an observation is filled with another slot's."""
        filler = next(episode for episode in episodes if episode.observation is not None)
        shown = [episode if episode.observation is not None else filler for episode in episodes]
        images = torch.from_numpy(np.stack([self._images(episode) for episode in shown])).movedim(-1, -3)
        proprio = np.stack([episode.observation["proprio"] for episode in shown])
        if self.policy.proprio:  # without it the statistics may have no scale
            proprio = self.statistics.normalise_proprio(proprio)
        ids, lengths = self.policy.encode_text([self.policy.interface.instruction(episode.info) for episode in shown])
        return self.policy.encode(
            images.to(self.device),
            torch.from_numpy(proprio).to(self.device),
            ids.to(self.device),
            lengths.to(self.device),
        )

    def _images(self, episode: RunningEpisode) -> np.ndarray:
        """(V, h, w, 3), the cameras that the policy was trained with; the first image last, where it was shown one."""
        interface = self.policy.interface
        first = [episode.first_images[interface.seen[:1]]] if interface.first_image else []
        images = np.concatenate([episode.observation["images"][interface.seen], *first])
        return images if self.protocol.jpeg is None else compress(images, self.protocol.jpeg)

    def _check_read(self, episode: RunningEpisode, seen: State) -> None:
        """Require finite numbers and note whether the memory moved; `check_episode` judges the movement."""
        if not all_finite(seen):
            raise NotAMeasurement(
                "memory",
                got=f"NaN or infinity at step {episode.step} of episode seed {episode.seed}",
                expected="finite",
                remedy="the cell has no result: read its training log",
            )
        # Compare from the second tick on: a frozen memory may differ from the initial memory, which the first tick
        # read. An intervention with a schedule is compared from the second tick on at which it acted.
        intervention = self.intervention
        acted = episode.reads if intervention is None or intervention.schedule is None else episode.fired
        if acted >= 2:
            episode.moved |= moved(episode.watched, seen, intervention, self.recurrence.memory.units)
            episode.compared = True
        episode.watched = seen

    def check_episode(self, episode: RunningEpisode) -> None:
        """Require as many memory writes as the steps ask for, and a memory that moved or was frozen as declared."""
        per_query = self.protocol.h if self.protocol.tick == "call" else 1
        expected = math.ceil(episode.step / per_query)
        writes = self.recurrence.writes[episode.index]
        if writes != expected:
            raise NotAMeasurement(
                "memory",
                got=f"{writes} writes in {episode.step} steps of episode seed {episode.seed}",
                expected=f"{expected} at tick {self.protocol.tick}",
                remedy="report this as a bug",
            )
        memory, intervention = self.recurrence.memory, self.intervention
        effect = intervention.effect if intervention else "keeps"
        if not memory.has_state or not episode.compared or effect == "any":
            return
        if intervention and not intervention.uninterrupted:
            return
        if effect == "keeps":
            if memory.settles:
                return
            effect = "moves" if memory.recurs else "freezes"
        if episode.moved != (effect == "moves"):
            raise NotAMeasurement(
                "memory",
                got="moved" if episode.moved else "frozen",
                expected=f"a memory that {effect} under intervention {intervention and intervention.name}",
                remedy="the cell has no result: check the intervention's function and the memory's update rule",
            )
