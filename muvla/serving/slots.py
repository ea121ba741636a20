"""A policy behind slots: one forward pass for the frames of any sessions, memory by slot.

`PolicySlots` runs our policies through the actor of a rollout, so a served episode computes what an evaluated episode
computes. A frame that fails takes no other frame with it.

Legend: V cameras, h×w image, Q proprio dim, H chunk, A action dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from muvla.config import TaskConfig
from muvla.data.normalization import Statistics
from muvla.envs.conventions import Conventions
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.memory.contract import State
from muvla.models.policy import Policy
from muvla.recurrence.slot_clock import SlotClock
from muvla.recurrence.watch import all_finite
from muvla.serving.gripper import Gripper, choose_gripper
from muvla.serving.observation import Needs, Observed
from muvla.serving.refusal import BROKEN, Refused


class Slots(ABC):
    """A policy with a state for each of `count` slots.

    Attributes:
        count: number of slots.
        needs: what an observation must hold.
        chunk: H.
        recurrent: True if an answer depends on earlier frames of the episode.
    """

    count: int
    needs: Needs
    chunk: int
    recurrent: bool

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what decides the answers, for `/config`: plain data without addresses and times."""

    @abstractmethod
    def start(self, slot: int, seed: int) -> None:
        """Begin an episode in a slot. `seed` keys the random draws of the policy."""

    @abstractmethod
    def tick(self, frames: Mapping[int, Observed], steps: Mapping[int, int]) -> dict[int, np.ndarray | Exception]:
        """Return a chunk (H, A) for each slot, not normalised, or the exception of this slot.

        The state of a slot that fails, or that has no frame, stays as it was.

        Args:
            frames: slot → frame.
            steps: slot → environment step of the frame.
        """


class _ServingActor(PolicyActor):
    """Watches no movement of the memory: an episode of a client has no known end."""

    def _check_read(self, episode: RunningEpisode, seen: State) -> None:
        if not all_finite(seen):
            episode.moved = True  # the mark of a broken memory


class PolicySlots(Slots):
    """One of our policies.

    Args:
        policy: put into evaluation mode.
        statistics: scale of proprioception and actions.
        count: slots.
        batch: rows of a forward pass, at most `count`; None for `count`. Answers are equal bit for bit at one number of
            rows only. A pass computes every row, so a small number is faster for frames that come one by one.
        facts: further facts for `/config`.
        names: names of the cameras in the training's order.

    Raises:
        MuvlaError: the policy reads the target's name, which no wire carries.
    """

    def __init__(
        self,
        policy: Policy,
        statistics: Statistics,
        count: int,
        facts: Mapping[str, Any] | None = None,
        names: tuple[str, ...] = (),
        batch: int | None = None,
    ):
        if batch is not None and not 1 <= batch <= count:
            remedy = f"leave --batch out, or give --slots {batch}"
            raise MuvlaError("--batch", got=batch, expected=f"1 to {count}, the number of slots", remedy=remedy)
        self.batch = batch or count
        interface, self.count, self.chunk = policy.interface, count, policy.config.chunk
        if interface.target_in_text:
            raise MuvlaError(
                "RUN",
                got="a policy whose instruction names the target (data.instruction)",
                expected="a policy that reads the task's text",
                remedy="serve another cell: no wire carries the target of an episode",
            )
        self.recurrent = policy.memory.has_state or interface.first_image
        self.needs = Needs(
            cameras=interface.robot_cameras or interface.cameras - interface.first_image,
            proprio=interface.proprio_dim,
            reads_proprio=bool(policy.proprio),
            side=policy.config.size.image_size if policy.config.images == "stored" else None,
            names=names,
            require_prompt=lambda text: policy.encode_text([text]),
        )
        self._facts = dict(facts or {})
        task = TaskConfig("RecallPosition3-v0")  # no environment is opened; the protocol carries the slots
        self._actor = _ServingActor(policy, statistics, Protocol("serving", 1, task, episodes=1, slots=self.batch))
        device = next(policy.parameters()).device
        state = policy.memory.init_state(count)
        self._state = {name: leaf.detach().clone().to(device) for name, leaf in state.items()}
        self._clocks = [SlotClock() for _ in range(count)]
        self._policy, self._statistics = policy, statistics
        self._episodes = [RunningEpisode(slot) for slot in range(count)]

    def choose_gripper(self, form: str | None, conventions: Conventions) -> Gripper:
        """The gripper of the answers, see `muvla.serving.gripper.choose_gripper`."""
        return choose_gripper(form, self._policy, self._statistics, conventions)

    def config(self) -> dict[str, Any]:
        policy, needs = self._policy, self.needs
        return self._facts | {
            "slots": self.count,
            "batch": self.batch,
            "recurrent": self.recurrent,
            "memory": policy.memory.config.kind,
            "cameras": needs.cameras,
            "camera_names": list(needs.names),
            "seen_cameras": policy.interface.seen,
            "first_image": policy.interface.first_image,
            "image_size": policy.config.size.image_size,
            "images": policy.config.images,
            "state": needs.proprio,
            "reads_state": needs.reads_proprio,
            "action": policy.interface.action_dim,
            "chunk": self.chunk,
            "statistics": self._statistics.id,
        }

    def start(self, slot: int, seed: int) -> None:
        info = {"instruction": "", "phase": Phase.UNKNOWN}
        self._episodes[slot] = RunningEpisode(slot, seed=seed, info=info)

    def tick(self, frames: Mapping[int, Observed], steps: Mapping[int, int]) -> dict[int, np.ndarray | Exception]:
        shapes = {observed.images.shape for observed in frames.values()}
        chunks: dict[int, np.ndarray | Exception] = {}
        for shape in shapes:  # one pass has frames of one size
            group = {slot: observed for slot, observed in frames.items() if observed.images.shape == shape}
            slots = list(group)
            for start in range(0, len(slots), self.batch):
                chunks |= self._tick_together({slot: group[slot] for slot in slots[start : start + self.batch]}, steps)
        return chunks

    def _tick_together(self, frames: Mapping[int, Observed], steps: Mapping[int, int]) -> dict[int, Any]:
        """Tick in one pass; after an exception, each frame in a pass of its own, so that the others do not notice."""
        try:
            return self._tick(frames, steps)
        except Exception as error:
            if len(frames) == 1:
                return dict.fromkeys(frames, error)
        chunks: dict[int, np.ndarray | Exception] = {}
        for slot, observed in frames.items():
            chunks |= self._tick_together({slot: observed}, steps)
        return chunks

    def _tick(self, frames: Mapping[int, Observed], steps: Mapping[int, int]) -> dict[int, np.ndarray | Exception]:
        shape = next(iter(frames.values())).images.shape
        recurrence, rows = self._actor.recurrence, list(frames)
        rows += [slot for slot in range(self.count) if slot not in frames][: self.batch - len(rows)]
        recurrence.state = {name: leaf[rows] for name, leaf in self._state.items()}
        recurrence.clocks[:] = [replace(self._clocks[slot]) for slot in rows]
        batch = [self._in_batch(slot, frames.get(slot), steps, shape) for slot in rows]
        self._actor.act(batch, batch[: len(frames)])
        chunks: dict[int, np.ndarray | Exception] = {}
        for row, (slot, episode) in enumerate(zip(frames, batch, strict=False)):
            for name, leaf in recurrence.state.items():
                self._state[name][slot] = leaf[row]
            self._clocks[slot], self._episodes[slot] = recurrence.clocks[row], episode
            episode.chunks.clear()  # for rows; a client's episode has no end
            broken = episode.moved or not np.isfinite(episode.chunk).all()
            chunks[slot] = _not_finite(episode) if broken else episode.chunk
        return chunks

    def _in_batch(
        self, slot: int, observed: Observed | None, steps: Mapping[int, int], shape: tuple[int, ...]
    ) -> RunningEpisode:
        """The slot's episode with its frame: a new object, so that a pass that fails leaves the episode as it was."""
        last = self._episodes[slot]
        episode = RunningEpisode(slot, seed=last.seed, info=last.info, first_images=last.first_images)
        episode.is_first, episode.step, episode.moved = last.is_first, last.step, last.moved
        if observed is None:  # its frame fills the batch, if the frame has this pass's size
            same = last.observation is not None and last.observation["images"].shape == shape
            episode.observation = last.observation if same else None
            return episode
        episode.step = steps[slot]
        episode.info = last.info | {"instruction": observed.instruction}
        episode.observation = {"images": observed.images, "proprio": observed.proprio}
        if episode.is_first:
            episode.first_images = observed.images.copy()
        return episode


def _not_finite(episode: RunningEpisode) -> Refused:
    return Refused(
        "policy",
        got=f"NaN or infinity at step {episode.step}",
        expected="finite memory and actions",
        remedy="start a new episode; if it happens again, this policy cannot be served",
        status=BROKEN,
    )
