"""Training of one cell: windows of W ticks, cut into truncation blocks of K.

Legend: W window ticks, B slots, K truncation length, U updates, H chunk, A action dim, m memory, D width.

One update per window, for every K: K changes where gradient stops and nothing else. What does not recur (vision,
projector, proprio, text) runs once for all W·B frames; its outputs are leaves that collect the gradient of all blocks,
and one backward pass carries that on into the towers.

Gradient is computed as soon as no slot needs the graph any more: after every block where blocks are counted from the
window, and at the window's end where they are counted from each slot's own episode, so that activations of W ticks are
held then instead of K.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from muvla.checkpoints import native as ckpt
from muvla.checkpoints.build import build_policy, prompts_of, start_content, stored_parameters
from muvla.config import Cell, canonical, of_sources, started_at
from muvla.data.augmentation import augmented
from muvla.data.normalization import Statistics
from muvla.data.prefetch import ReadAhead
from muvla.data.store import EpisodeStore
from muvla.data.stream import SlotStream, Window
from muvla.envs.phases import Phase, events
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.interventions.base import Intervention
from muvla.models.diffusion import STEPS, Noised, draw, noised
from muvla.models.policy import Encoded, Interface, leak_test
from muvla.models.preprocessing import prepared
from muvla.models.prompts import Prompts
from muvla.recurrence import Moment, Recurrence
from muvla.training.budget import learning_rate
from muvla.training.diagnostics import Diagnosis
from muvla.training.distributed.base import CHECK_EVERY, SINGLE_PROCESS, Ranks
from muvla.training.distributed.memory_state import part_of
from muvla.training.oom import memory_explained
from muvla.training.truncation import block_starts
from muvla.utils.rng import key, torch_rng


def interface_of(store: EpisodeStore, prompts: Prompts, cell: Cell) -> Interface:
    """What the policy must fit, read off the data. Raises MuvlaError for a choice of cameras that is none, and for
    prompts that are longer than declared."""
    data, cameras = cell.data, store["images"].shape[1]
    if (data.cameras or 0) >= cameras:
        raise MuvlaError(
            "data.cameras", got=data.cameras, expected=f"fewer than the robot's {cameras}", remedy="null is all of them"
        )
    lengths = {len(prompts.encode(instruction)) for instruction in store.instructions}
    declared = cell.model.prompt_tokens
    if declared is not None and declared < max(lengths):
        raise MuvlaError(
            "model.prompt_tokens",
            got=declared,
            expected=f"at least {max(lengths)}: the data's longest prompt",
            remedy="raise it, or leave it null",
        )
    return Interface(
        cameras=(data.cameras or cameras) + data.first_image,
        first_image=data.first_image,
        robot_cameras=cameras if data.cameras else None,
        proprio_dim=store["proprio"].shape[1],
        action_dim=store["recorded_action"].shape[1],
        text=declared or max(lengths),
        text_padded=declared is not None or len(lengths) > 1,
    )


def require_trainable(intervention: Intervention | None, store: EpisodeStore) -> None:
    """Raises MuvlaError for an intervention that takes from other episodes' memories, which change as the policy is
    trained, and for one that waits for an event that the demonstrations do not tell."""
    if intervention is None:
        return
    if intervention.donor is not None:
        raise MuvlaError(
            "intervention",
            got=intervention.name,
            expected="one that needs no donors, in training",
            remedy="intervene on the trained cell: `muvla intervene`",
        )
    event = intervention.schedule and intervention.schedule.event
    if event and any(event not in events(line) for line in store.index):
        raise MuvlaError(
            "intervention",
            got=f"{intervention.name}, with demonstrations that do not tell their {event}",
            expected="a schedule of steps, or demonstrations with phases",
            remedy="choose another schedule",
        )


class Trainer:
    """A cell's policy, optimizer, memory and stream; `muvla.training.run` brings them to update U."""

    def __init__(
        self,
        cell: Cell,
        store: EpisodeStore,
        intervention: Intervention | None = None,
        device: str = "cpu",
        checkpoint_gradients: bool = False,
        ranks: Ranks = SINGLE_PROCESS,
    ):
        self.cell, self.device, self.ranks = canonical(cell), device, ranks
        self.checkpoint_gradients = checkpoint_gradients
        given = intervention.name if intervention else None
        if given != self.cell.intervention:
            raise MuvlaError(
                "intervention",
                got=given,
                expected=f"the cell's own, {self.cell.intervention!r}",
                remedy="pass that one",
            )
        self.statistics, self.interface = (
            Statistics.of(store, self.cell.data.statistics),
            interface_of(store, prompts_of(self.cell), self.cell),
        )
        self.start = start_content(self.cell)
        o, budget = self.cell.optimizer, self.cell.budget
        with ranks.together():
            self.slots = ranks.slots(budget.slots)  # of all B, those of this process
            policy = build_policy(self.cell, self.interface)
        self.policy = ranks.place(policy, device)
        if checkpoint_gradients:
            self.policy.checkpoint_gradients()
        groups = ranks.groups([(n, p) for n, p in self.policy.named_parameters() if p.requires_grad])
        self.names = [name for group in groups for name, _ in group]
        self.parameters = [parameter for group in groups for _, parameter in group]
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for _, p in group]} for group in groups],
            lr=o.lr,
            betas=o.betas,
            weight_decay=o.weight_decay,
            fused=True,
        )
        self.stream = SlotStream(
            store,
            self.cell.data,
            self.statistics,
            self.policy.encode_text,
            slots=budget.slots,
            chunk=self.cell.model.chunk,
            seed=self.cell.seed,
            own=self.slots,
        )
        self.ahead = ReadAhead(self.stream, pin=device != "cpu")
        require_trainable(intervention, store)
        self.recurrence = Recurrence(self.policy, len(self.slots), intervention)
        self.update = 0
        self.diagnosis: Diagnosis | None = None  # of the update at hand

    def encode(self, window: Window) -> Encoded:
        flat = (self.to_device(t.flatten(0, 1)) for t in (window.proprio, window.text_ids))
        lengths = self.to_device(window.text_lengths.flatten())
        if window.features is not None:
            return self.policy.encode_prepared(None, *flat, lengths, self.to_device(window.features))
        return self.policy.encode_prepared(self.prepared(window), *flat, lengths)

    def to_device(self, tensor: Tensor) -> Tensor:
        """On the device; nobody waits for the copy of what is pinned."""
        return tensor.to(self.device, non_blocking=True)

    def prepared(self, window: Window) -> Tensor:
        """(W·B, V, 3, s, s) uint8: the window's images as the towers see them, augmented if so declared."""
        images, model = self.to_device(window.images.flatten(0, 1)), self.cell.model
        if self.cell.data.augmentation == "none":
            return prepared(images, model.size.image_size, model.images)
        images = prepared(images, model.size.image_size, "resized")  # what is cropped at random is not cropped again
        changes = self.stream.changes(window)
        return augmented(images.flatten(0, 1), changes).unflatten(0, images.shape[:2])

    def backward(self, window: Window) -> float:
        """Gradient of one window's loss into the parameters; returns the loss. Of several ranks, each has its slots'
        share of both.

        The loss is the sum of weighted errors over W·B·H·A, the published mean (spec 1.8): a masked entry has weight 0,
        and every other entry the same weight in every label variant. An error is the absolute difference to the label,
        or under a diffusion head the squared one to the noise (spec 1.11).
        """
        B = window.is_first.shape[1]
        starts = block_starts(window.is_first.numpy(), self.cell.truncation, self.cell.truncation_from)
        encoded = self.encode(window)
        leaves = encoded.leaves()
        label, weight, is_first = (self.to_device(t) for t in (window.label, window.weight, window.is_first))
        entries = label.numel() * self.ranks.size
        # Ranks that share layers go back through them together, and each sees its own slots' episodes alone.
        alike = self.cell.truncation_from == "window" or not self.ranks.sharded
        loss, total = torch.zeros((), device=self.device), 0.0
        for t, start in enumerate(starts):
            if t > 0 and start.all() and alike:
                total += self._end_blocks(loss / entries)
                loss = torch.zeros((), device=self.device)
            elif t > 0 and start.any():
                self.recurrence.truncate(torch.from_numpy(start).to(self.device))
            noise = self._noised(label[t], window, t)
            output, tokens = self.recurrence.tick(
                leaves[t * B : (t + 1) * B],
                is_first[t],
                self._moment(window, t),
                noised=noise,
            )
            wanted = label[t] if noise is None else noise.noise
            error = (output.actions - wanted).abs() if noise is None else (output.actions - wanted) ** 2
            error = error * weight[t][..., None]
            loss = loss + error.sum()
            if self.diagnosis:
                self.diagnosis.tick(error, weight[t], window.phase[t], tokens, self.recurrence.state)
        if self.diagnosis:
            self.diagnosis.credit(entries)
        total += self._end_blocks(loss / entries)
        _continue_backward(encoded, leaves)
        return total

    def _end_blocks(self, loss: Tensor) -> float:
        """Of all slots: gradient of what they hold, and a cut behind it. Returns the loss."""
        loss.backward()
        self.recurrence.truncate()
        return loss.item()

    def _noised(self, label: Tensor, window: Window, t: int) -> Noised | None:
        """(B, H, A) labels with noise for a diffusion head, the same in all cells of a seed, whatever their window;
        None for another head."""
        if self.policy.noisy is None:
            return None
        rng = partial(torch_rng, self.cell.seed)
        _, chunk, action_dim = label.shape
        keys = [(slot, int(window.visit[t, i]), int(window.tick[t, i])) for i, slot in enumerate(self.slots)]
        noise = [draw(chunk, action_dim, partial(rng, "noise", *key)) for key in keys]
        time = [torch.randint(STEPS, (), generator=rng("noise time", *key)) for key in keys]
        return noised(label, torch.stack(noise), torch.stack(time))

    def _moment(self, window: Window, t: int) -> Moment:
        # An intervention in training is keyed by the visit, not by the episode alone: the same "noise" at every pass
        # over the data could be learned by heart.
        visits = [f"{slot}:{visit}" for slot, visit in zip(self.slots, window.visit[t].tolist(), strict=True)]
        intervened = self.recurrence.intervention is not None
        return Moment(
            tick=window.tick[t].tolist(),
            phase=[Phase(p) for p in window.phase[t].tolist()],
            key=visits,
            seed=[key(self.cell.seed, "training visit", visit) for visit in visits],
            events=[events(self.stream.store.index[i]) for i in window.episode[t].tolist()] if intervened else None,
        )

    def step(self, diagnosis: Diagnosis | None = None) -> tuple[float, float]:
        """One update; returns (loss, gradient norm), and what else it tells in the `diagnosis`. Raises NotAMeasurement
        when something is not finite, or when the memory does not do what its mechanism says, and MuvlaError when the
        memory of the machine does not suffice."""
        self.diagnosis, budget = diagnosis, self.cell.budget
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.cell.optimizer, self.update, budget.updates)
        explained = partial(memory_explained, self.cell, self.interface, self.checkpoint_gradients, self.ranks.size)
        with self.ranks.together(), explained():
            window = self.ahead.window(budget.window, last=self.update + 1 == budget.updates)
            calls, writes = self.policy.calls, list(self.recurrence.writes)
            loss = self.backward(window)
            self._check_ticks(window, self.policy.calls - calls, writes)
        loss = self.ranks.add_gradients(self.parameters, loss)
        norm = self.ranks.clip(self.parameters, self.cell.optimizer.clip or math.inf)
        with self.ranks.together(), explained():
            self._check(loss, norm)
            if diagnosis:
                diagnosis.before_update()
            self.optimizer.step()
        if diagnosis:
            diagnosis.after_update()
        self.optimizer.zero_grad(set_to_none=True)
        self.update += 1
        if self.update % CHECK_EVERY == 0:
            self.check_ranks()
        return loss, norm

    def _check_ticks(self, window: Window, calls: int, writes: list[int]) -> None:
        """Model calls == ticks of the window; and each slot, which had `writes` before it, has one more per tick,
        counted anew from its episode's first."""
        for is_first in window.is_first.tolist():
            writes = [1 if first else n + 1 for n, first in zip(writes, is_first, strict=True)]
        if calls != len(window.is_first) or self.recurrence.writes != writes:
            raise NotAMeasurement(
                f"memory at update {self.update + 1}",
                got=f"{calls} model calls, writes {self.recurrence.writes}",
                expected=f"{len(window.is_first)} and {writes}",
                remedy="report this as a bug",
            )

    def _check(self, loss: float, norm: float) -> None:
        state, memory = self.recurrence.state, self.recurrence.memory
        finite = math.isfinite(loss) and math.isfinite(norm) and all(bool(x.isfinite().all()) for x in state.values())
        if not finite:
            raise NotAMeasurement(
                f"training at update {self.update + 1}",
                got=f"loss {loss}, gradient norm {norm}, memory RMS {self.memory_rms(SINGLE_PROCESS)}",
                expected="finite numbers",
                remedy="lower optimizer.lr or set optimizer.clip; the cell is marked and has no result",
            )
        initial = memory.init_state(self.recurrence.slots)
        moved = any(bool((state[name] != initial[name]).any()) for name in state)
        if self.recurrence.intervention is None and moved != memory.recurrent:
            raise NotAMeasurement(
                f"memory at update {self.update + 1}",
                got="moved" if moved else "frozen",
                expected=f"a memory that {'moves' if memory.recurrent else 'stays as it is'} under kind "
                f"{self.cell.memory.kind}",
                remedy="report this as a bug",
            )

    def leak_test(self) -> float:
        """The leak test on this cell's own first frames; the stream is left where it was."""
        before = self.stream.state()
        window = self.stream.window(1)
        self.stream.load_state(before)
        tokens = self.recurrence.memory.read(self.recurrence.memory.init_state(len(self.slots)))
        with torch.no_grad(), self.ranks.together():
            return leak_test(self.policy, self.encode(window), tokens)

    def check_ranks(self) -> None:
        """Raises NotAMeasurement if the ranks' policies have become different ones."""
        self.ranks.check(self.policy.named_parameters(), f"update {self.update}")

    def checkpoint(self) -> ckpt.Checkpoint:
        """The same whatever the number of ranks; whole on rank 0 alone, but every rank takes part."""
        self.check_ranks()
        tensors = {
            "model": self.ranks.gather(stored_parameters(self.policy, self.cell)),
            "optimizer": self.ranks.gather(ckpt.optimizer_tensors(self.optimizer, self.names)),
            "memory": self.ranks.gather_slots(self.recurrence.export()),
        }
        return ckpt.Checkpoint(
            self.update, self.cell, self.start, self.interface, self.statistics, self.stream.state(), tensors
        )

    def resume(self, saved: ckpt.Checkpoint) -> None:
        """Continue as if never stopped. Raises MuvlaError if the checkpoint is of another cell or other data."""
        for name, got, own in (
            ("configuration", self._placed(saved.cell), self.cell),
            ("start", saved.start, self.start),
            ("interface", saved.interface, self.interface),
            ("statistics", saved.statistics, self.statistics),
        ):
            if got != own:
                raise MuvlaError(
                    f"checkpoint {name}", got=got, expected=str(own), remedy="train in a new folder, or undo the change"
                )
        own = stored_parameters(self.policy, self.cell)
        ckpt.load_parameters(own, self.ranks.shard_like(saved.tensors["model"], own))
        ckpt.load_optimizer(self.optimizer, self.names, self.ranks.shard_like(saved.tensors["optimizer"], own))
        self.recurrence.load(part_of(saved.tensors["memory"], self.slots))
        self.stream.load_state(saved.cursor)
        self.update = saved.update

    def _placed(self, cell: Cell) -> Cell:
        """Another machine's cell with this one's places: where data and start lie is no difference."""
        cell, here = started_at(cell, self.cell.start.checkpoint), [one.source for one in self.cell.data.datasets]
        return of_sources(cell, here) if len(here) == len(cell.data.datasets) else cell

    def memory_rms(self, ranks: Ranks | None = None) -> float:
        """Root mean square of the carried memory; 0 without one. Of all ranks, unless told."""
        ranks = ranks or self.ranks
        leaves = [leaf for leaf in self.recurrence.state.values() if leaf.numel()]
        return max((ranks.mean(leaf.detach().square().mean()).sqrt().item() for leaf in leaves), default=0.0)


def _continue_backward(encoded: Encoded, leaves: Encoded) -> None:
    """Carry the gradient that the leaves have collected from all blocks on into vision, projector and text
    embedding."""
    pairs = [
        (tensor, leaf.grad)
        for tensor, leaf in zip(encoded.tensors(), leaves.tensors(), strict=True)
        if tensor.requires_grad and leaf.grad is not None
    ]
    torch.autograd.backward([tensor for tensor, _ in pairs], [grad for _, grad in pairs])
