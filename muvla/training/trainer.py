"""Training of one cell: windows of W ticks, cut into truncation blocks of K.

Legend: W window ticks, B slots, K truncation length, U updates, H chunk, A action dim, m memory, D width.

Every K makes one update per window: K changes where gradient stops and nothing else. The parts that do not recur
(vision, projector, proprio, text) run once for all W·B frames. Their outputs are leaves that collect the gradient of
all blocks. One backward pass then carries this gradient on into the towers.

The trainer computes gradient as soon as no slot needs the graph any more. Blocks that are counted from the window end
for all slots at once, so gradient follows after every block. Blocks that are counted from each slot's episode end at
different ticks, so gradient follows at the window's end, and activations of W ticks are held instead of K.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from muvla.checkpoints.build import build_policy, get_prompts, hash_start
from muvla.config import Cell, canonical
from muvla.data.normalization import Statistics
from muvla.data.prefetch import Prefetcher
from muvla.data.store import EpisodeStore
from muvla.data.stream import SlotStream, Window
from muvla.interventions.base import Intervention
from muvla.models.diffusion import Noised, get_error
from muvla.models.leak_test import leak_test
from muvla.models.policy import Encoded
from muvla.recurrence import Moment, Recurrence
from muvla.training.checks import check_finite, check_moved, check_ticks, memory_rms, require_trainable
from muvla.training.diagnostics import Diagnosis
from muvla.training.distributed.base import CHECK_EVERY, SINGLE_PROCESS, Ranks
from muvla.training.inputs import add_expert_noise, add_label_noise, get_moment, prepare_images
from muvla.training.interface import get_interface
from muvla.training.lr_schedule import get_learning_rate
from muvla.training.one_pass import require_one_pass, run_window
from muvla.training.oom import memory_explained
from muvla.training.truncation import find_block_starts


class Trainer:
    """Trains the policy of one cell; each `step` is one update.

        from pathlib import Path

        from muvla.config import Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, TaskConfig
        from muvla.config.sizes import get_size
        from muvla.data.collect import collect
        from muvla.training.trainer import Trainer

        data = DataConfig(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=50))
        cell = Cell(ModelConfig(get_size("tiny"), reserve=4), data, MemoryConfig("tokens", m=4), truncation=8)
        trainer = Trainer(cell, collect(data.dataset, Path("datasets")))  # demonstrations of the scripted expert
        for _ in range(5):
            loss, gradient_norm = trainer.step()
            print(f"update {trainer.update}: loss {loss:.3f}, memory RMS {trainer.memory_rms():.2f}")

    `muvla.training.run.train_to_the_end` brings a trainer to update U in a folder, with log, checkpoints and exact
    continuation.

    Attributes:
        cell: the canonical cell.
        policy: the policy under training.
        recurrence: the carried memory of this process's slots.
        stream: the demonstrations, as W ticks of B slots at a time.
        slots: numbers of this process's slots among all B.
        update: updates made so far.
    """

    def __init__(
        self,
        cell: Cell,
        store: EpisodeStore,
        intervention: Intervention | None = None,
        device: str = "cpu",
        checkpoint_gradients: bool = False,
        ranks: Ranks = SINGLE_PROCESS,
        one_pass: bool = False,
    ):
        """Builds policy, optimizer, stream and memory.

        Args:
            cell: the configuration; made canonical here.
            store: the demonstrations that the cell names.
            intervention: the intervention that the cell names, parsed; None without.
            device: torch device of the policy.
            checkpoint_gradients: recompute activations in the backward pass; same numbers, less memory, more time.
            ranks: the processes that share this training.
            one_pass: one pass of the language model per window (`muvla.training.one_pass`); other rounding.

        Raises:
            MuvlaError: intervention, data or starting checkpoint do not fit the cell.
        """
        self.cell, self.device, self.ranks = canonical(cell), device, ranks
        self.checkpoint_gradients, self.one_pass = checkpoint_gradients, one_pass
        if one_pass:
            require_one_pass(self.cell, ranks.size)
        require_trainable(self.cell, intervention, store)
        self.statistics = Statistics.from_store(store, self.cell.data.statistics)
        self.interface = get_interface(store, get_prompts(self.cell), self.cell)
        self.start = hash_start(self.cell)
        budget = self.cell.budget
        with ranks.raise_together():
            self.slots = ranks.slots(budget.slots)
            policy = build_policy(self.cell, self.interface)
        self.policy = ranks.place(policy, device)
        if checkpoint_gradients:
            self.policy.checkpoint_gradients()
        self._make_optimizer()
        self.stream = SlotStream(
            store,
            self.cell.data,
            self.statistics,
            self.policy.encode_text,
            slots=budget.slots,
            chunk=self.cell.model.chunk,
            seed=self.cell.seed,
            local_slots=self.slots,
        )
        self.prefetcher = Prefetcher(self.stream, pin=device != "cpu")
        self.recurrence = Recurrence(self.policy, len(self.slots), intervention)
        self.update = 0
        self.diagnosis: Diagnosis | None = None  # of the update in progress

    def _make_optimizer(self) -> None:
        """AdamW over the trained parameters, in groups that one kernel can update."""
        config = self.cell.optimizer
        trained = [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]
        groups = self.ranks.group_parameters(trained)
        self.names = [name for group in groups for name, _ in group]
        self.parameters = [parameter for group in groups for _, parameter in group]
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for _, p in group]} for group in groups],
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def encode(self, window: Window) -> Encoded:
        """Runs vision, projector, proprio and text embedding for all W·B frames of the window."""
        flat = (self.to_device(t.flatten(0, 1)) for t in (window.proprio, window.text_ids))
        lengths = self.to_device(window.text_lengths.flatten())
        if window.features is not None:
            return self.policy.encode_prepared(None, *flat, lengths, self.to_device(window.features))
        return self.policy.encode_prepared(self.prepare_images(window), *flat, lengths)

    def prepare_images(self, window: Window) -> Tensor:
        """Returns (W·B, V, 3, s, s) uint8: the window's images as the vision towers see them."""
        images = self.to_device(window.images.flatten(0, 1))
        return prepare_images(images, self.cell, lambda: self.stream.changes(window))

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copies to the device; a copy from pinned memory runs in the background."""
        return tensor.to(self.device, non_blocking=True)

    def get_moment(self, window: Window, t: int) -> Moment:
        """Describes tick `t` of the window to the recurrence."""
        store = None if self.recurrence.intervention is None else self.stream.store
        return get_moment(window, t, self.slots, self.cell.seed, store)

    def add_label_noise(self, label: Tensor, window: Window, t: int, slots: range | None = None) -> Noised | None:
        """Adds noise to the labels (B, H, A) of tick `t` for a head that denoises; None for another head.

        Args:
            label: normalised actions.
            window: gives visit and step of every slot.
            t: tick of the window.
            slots: numbers of the slots, which key the noise; those of this process by default.
        """
        slots = self.slots if slots is None else slots
        if not self.policy.noise_draws:
            return None
        if self.policy.noisy is None:
            return add_expert_noise(label, window, t, slots, self.cell)
        return add_label_noise(label, window, t, slots, self.cell.seed)

    def backward(self, window: Window) -> float:
        """Computes the gradient of one window's loss and returns the loss.

        The loss is the published mean (spec 1.8): the sum of weighted errors over W·B·H·A. A masked entry has weight 0;
        every other entry has the same weight in every label variant. The error is the absolute difference to the label.
        A diffusion head has the squared difference to the noise instead (spec 1.11). With several ranks, each rank gets
        the share of its slots in loss and gradient.
        """
        B = window.is_first.shape[1]
        starts = find_block_starts(window.is_first.numpy(), self.cell.block_length, self.cell.truncation_from)
        encoded = self.encode(window)
        leaves = encoded.leaves()
        states = run_window(self.policy, encoded, window) if self.one_pass else None
        one_pass_leaf = None if states is None else states.detach().requires_grad_()
        label, weight, is_first = (self.to_device(t) for t in (window.label, window.weight, window.is_first))
        entries = label.numel() * self.ranks.size
        # Ranks that share layers must go back through these layers together, and each rank sees only the episodes of
        # its slots.
        alike = self.cell.truncation_from == "window" or not self.ranks.sharded
        loss, total = torch.zeros((), device=self.device), 0.0
        for t, start in enumerate(starts):
            if t > 0 and start.all() and alike:
                total += self.end_block(loss / entries)
                loss = torch.zeros((), device=self.device)
            elif t > 0 and start.any():
                self.recurrence.truncate(torch.from_numpy(start).to(self.device))
            noise = self.add_label_noise(label[t], window, t)
            moment = self.get_moment(window, t)
            rows = slice(t * B, (t + 1) * B)
            of_tick = None if one_pass_leaf is None else one_pass_leaf[rows]
            output, _ = self.recurrence.tick(leaves[rows], is_first[t], moment, noised=noise, states=of_tick)
            error = get_error(output.actions, label[t], noise) * weight[t][..., None]
            loss = loss + error.sum()
            if self.diagnosis:
                self.diagnosis.tick(error, window, t, self.recurrence.read_state, self.recurrence.state)
        if self.diagnosis:
            self.diagnosis.credit(entries)
        total += self.end_block(loss / entries)
        _continue_backward(encoded, leaves, [] if states is None else [(states, one_pass_leaf.grad)])
        return total

    def end_block(self, loss: Tensor) -> float:
        """Ends a truncation block of all slots: computes its gradient and cuts the graph. Returns the block's loss."""
        loss.backward()
        self.recurrence.truncate()
        return loss.item()

    def step(self, diagnosis: Diagnosis | None = None) -> tuple[float, float]:
        """Makes one update on the stream's next window; returns (loss, gradient norm before clipping).

        Args:
            diagnosis: filled with further measurements of this update.

        Raises:
            NotAMeasurement: a number is not finite, or the memory does not do what its mechanism declares.
            MuvlaError: the machine runs out of memory.
        """
        self.diagnosis, budget = diagnosis, self.cell.budget
        for group in self.optimizer.param_groups:
            group["lr"] = get_learning_rate(self.cell.optimizer, self.update, budget.updates)
        explained = partial(memory_explained, self.cell, self.interface, self.checkpoint_gradients, self.ranks.size)
        with self.ranks.raise_together(), explained():
            window = self.prefetcher.window(budget.window, last=self.update + 1 == budget.updates)
            calls, writes = self.policy.calls, list(self.recurrence.writes)
            loss = self.backward(window)
            made = self.policy.calls - calls
            check_ticks(window.is_first, made, writes, self.recurrence.writes, self.update + 1)
        loss = self.ranks.add_gradients(self.parameters, loss)
        norm = self.ranks.clip(self.parameters, self.cell.optimizer.clip or math.inf)
        with self.ranks.raise_together(), explained():
            check_finite(self.recurrence, loss, norm, self.update + 1)
            check_moved(self.recurrence, self.cell.memory.kind, self.update + 1)
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

    def leak_test(self) -> float:
        """Runs the leak test on the cell's first frames and returns its result; the stream stays where it is."""
        before = self.stream.state()
        window = self.stream.window(1)
        self.stream.load_state(before)
        state = self.recurrence.memory.init_state(len(self.slots))
        with torch.no_grad(), self.ranks.raise_together():
            return leak_test(self.policy, self.encode(window), state)

    def check_ranks(self) -> None:
        """Raises NotAMeasurement if the ranks hold different parameters."""
        self.ranks.check_parameters(self.policy.named_parameters(), f"update {self.update}")

    def memory_rms(self) -> float:
        """Returns the root mean square of the carried memory over all ranks; 0 without a memory."""
        return memory_rms(self.recurrence.state.values(), self.ranks.mean)


def _continue_backward(encoded: Encoded, leaves: Encoded, further: list[tuple[Tensor, Tensor]]) -> None:
    """Carries the gradient that the leaves collected from all blocks on into vision, projector and text embedding.

    Args:
        encoded: in the graph of the towers.
        leaves: the same values, with the gradient of the ticks.
        further: other tensors of the graph, and their gradient.
    """
    pairs = further + [
        (tensor, leaf.grad)
        for tensor, leaf in zip(encoded.tensors(), leaves.tensors(), strict=True)
        if tensor.requires_grad and leaf.grad is not None
    ]
    torch.autograd.backward([tensor for tensor, _ in pairs], [grad for _, grad in pairs])
