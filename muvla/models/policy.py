"""The OpenVLA-OFT policy with MEMORY tokens: one tick from an encoded observation and a memory to an action chunk.

Legend: N frames, B slots, V cameras, P patches, S sequence, T text, m memory, D width, H chunk, A action dim, Q
proprio.

A tick has two halves. `encode` holds everything that does not recur (vision, projector, proprio, text embedding) and
may run on many ticks at once. `step` is the language model, the only part that sees the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from muvla.config import ModelConfig
from muvla.errors import NotAMeasurement
from muvla.memory.base import Memory
from muvla.models.attention import ATTENTION_NAME
from muvla.models.attention_plan import AttentionPlan
from muvla.models.diffusion import Noised, NoisyActions, denoise
from muvla.models.film import Film, average_language
from muvla.models.heads import ActionHead, ProprioProjector
from muvla.models.preprocessing import prepare
from muvla.models.prompts import Prompts, built_in_prompts
from muvla.models.sequence import Layout
from muvla.models.vision import FusedVision


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs that the policy exchanges with a robot; given by the data, checked at evaluation."""

    cameras: int  # V, the episode's first image included
    proprio_dim: int  # Q
    action_dim: int  # A
    text: int  # T, the padded prompt length of the run's tasks
    text_padded: bool  # prompts of different lengths may share a batch
    first_image: bool = False  # the last image is the first camera's at the episode's first step
    robot_cameras: int | None = None  # number of the robot's cameras, where the policy sees only a part of them


@dataclass(frozen=True)
class Encoded:
    """The non-recurrent part of N frames."""

    prefix: Tensor  # (N, 1 + V·P + 1, D) BOS, VISION, and PROPRIO for a policy with proprio
    text: Tensor  # (N, T, D)
    stop: Tensor  # (N, 1, D)
    text_lengths: Tensor  # (N,)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.prefix, self.text, self.stop

    def __getitem__(self, rows: slice) -> Encoded:
        return Encoded(self.prefix[rows], self.text[rows], self.stop[rows], self.text_lengths[rows])

    def leaves(self) -> Encoded:
        """Returns the same values as new leaves, which collect the gradient of several backward passes."""
        prefix, words, stop = (t.detach().requires_grad_(t.requires_grad) for t in self.tensors())
        return replace(self, prefix=prefix, text=words, stop=stop)


@dataclass(frozen=True)
class StepOutput:
    actions: Tensor  # (B, H, A) normalised
    memory: Tensor  # (B, m, D) final hidden states at the MEMORY rows, after the closing norm (spec 2.2)


class Policy(nn.Module):
    def __init__(self, config: ModelConfig, memory: Memory, interface: Interface, prompts: Prompts | None = None):
        super().__init__()
        self.config, self.interface, self.memory = config, interface, memory
        self.prompts = prompts or built_in_prompts()
        size = config.size
        self.vision = FusedVision(size)
        if config.vision == "frozen":
            self.vision.freeze_towers()
        self.film = Film(size) if config.film else None
        self.proprio = ProprioProjector(interface.proprio_dim, size.width) if config.proprio else None
        self.language = LlamaModel(
            LlamaConfig(
                vocab_size=size.vocabulary,
                hidden_size=size.width,
                intermediate_size=size.mlp,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                attn_implementation=ATTENTION_NAME,
                use_cache=False,
            )
        )
        self.head = ActionHead(config.chunk, interface.action_dim, size.width)
        self.noisy = NoisyActions(size.width) if config.head == "diffusion" else None
        self.calls = 0  # calls of `step`, for the run-time check against ticks and memory writes

    def checkpoint_gradients(self) -> None:
        """Holds only a block's inputs in the forward pass and recomputes the block in the backward pass.

        The numbers stay the same for less memory and more time, also with the graphs of several ticks alive at once.
        """
        for part in (self.language, self.vision.dino, self.vision.siglip):
            part.activation_checkpointing_enable({"use_reentrant": False})

    def layout(self) -> Layout:
        size, m = self.config.size, self.memory.width
        return Layout(
            vision=self.interface.cameras * size.patches,
            memory=m,
            text=self.interface.text,
            action=self.config.chunk * self.interface.action_dim,
            reserve=self.config.reserve if self.config.memory_positions == "reserved" else m,
            padded=self.interface.text_padded,
            proprio=int(self.config.proprio),
            time=int(self.noisy is not None),
        )

    def encode_text(self, instructions: list[str]) -> tuple[Tensor, Tensor]:
        """Returns (B, T) ids and (B,) lengths in this policy's batch shape; raises MuvlaError for a prompt that does
        not fit."""
        return self.prompts.encode_batch(instructions, self.interface.text, self.interface.text_padded)

    def encode(self, images: Tensor, proprio: Tensor, text_ids: Tensor, text_lengths: Tensor) -> Encoded:
        """Encodes N frames.

        Args:
            images: (N, V, 3, h, w) uint8 of any size that `ModelConfig.images` takes.
            proprio: (N, Q) normalised.
            text_ids: (N, T), padded on the left.
            text_lengths: (N,).
        """
        images = prepare(images, self.config.size.image_size, self.config.images)
        return self.encode_prepared(images, proprio, text_ids, text_lengths)

    def encode_prepared(
        self,
        images: Tensor | None,
        proprio: Tensor,
        text_ids: Tensor,
        text_lengths: Tensor,
        features: Tensor | None = None,
    ) -> Encoded:
        """Encodes N frames with images of the model's size.

        Args:
            images: (N, V, 3, s, s) uint8; None with `features`.
            proprio: (N, Q) normalised.
            text_ids: (N, T), padded on the left.
            text_lengths: (N,).
            features: (N, V, P, F) of `FusedVision.features`, in place of the images.
        """
        n = len(text_ids)
        embed = self.language.embed_tokens
        ends = embed(torch.tensor([self.prompts.bos, self.prompts.stop], device=text_ids.device))
        bos, stop = (end.expand(n, 1, -1) for end in ends)
        words = embed(text_ids)
        language = None if self.film is None else average_language(bos, words, stop, text_lengths)
        with self.computing(text_ids.device):
            proprio_token = [self.proprio(proprio)] if self.proprio else []
            if features is None:
                features = self.vision.features(images, self.film, language)
            prefix = torch.cat([bos, self.vision.project(features), *proprio_token], dim=1)
        return Encoded(prefix=prefix, text=words, stop=stop, text_lengths=text_lengths)

    def computing(self, device: torch.device) -> torch.autocast:
        """Computes matrix products in bfloat16 if the cell says so; sums, norms and trained parameters keep their
        dtype."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def step(
        self, encoded: Encoded, memory: Tensor, noise: Tensor | None = None, removed: Tensor | None = None
    ) -> StepOutput:
        """Computes one tick of B slots.

        A diffusion head denoises `noise` and writes the memory in its last pass. Under the guard `context` every pass
        would write the same memory.

        Args:
            encoded: B frames.
            memory: (B, m, D), as `Memory.read` returned it.
            noise: (B, H, A), for a diffusion head.
            removed: (B, m) bool. No token sees a removed token, every other token keeps its position, and the rows
                of removed tokens in the output are meaningless.
        """
        self.calls += 1
        if self.noisy is None:
            placeholders = encoded.prefix.new_zeros(len(memory), self.layout().action, encoded.prefix.shape[-1])
            return self._forward(encoded, memory, placeholders, [], removed)  # zeros at ACTION, spec 1.5
        passes: list[StepOutput] = []

        def predict(actions: Tensor, time: Tensor) -> Tensor:
            passes[:] = [self._predict(encoded, memory, actions, time, removed)]
            return passes[0].actions

        return StepOutput(denoise(noise, predict), passes[0].memory)

    def predict_noise(
        self, encoded: Encoded, memory: Tensor, noised: Noised, removed: Tensor | None = None
    ) -> StepOutput:
        """Computes one tick of a diffusion head's training; `actions` of the output is the noise that it predicts.

        Args:
            encoded: B frames.
            memory: (B, m, D), as `Memory.read` returned it.
            noised: labels mixed with noise.
            removed: (B, m) bool, as of `step`.
        """
        self.calls += 1
        return self._predict(encoded, memory, noised.actions, noised.time, removed)

    def perturbed(self, encoded: Encoded, memory: Tensor, guarded: Tensor) -> StepOutput:
        """Runs a pass with other embeddings of ACTION, STOP and TIME, `guarded` (B, H·A + 2, D), for the leak test."""
        actions, stop, time = guarded.split([self.layout().action, 1, 1], dim=1)
        return self._forward(replace(encoded, stop=encoded.stop + stop), memory, actions, [time] * self.layout().time)

    def _predict(
        self, encoded: Encoded, memory: Tensor, actions: Tensor, time: Tensor, removed: Tensor | None = None
    ) -> StepOutput:
        with self.computing(actions.device):
            embedded = self.noisy(actions)
        return self._forward(encoded, memory, embedded, [self.noisy.time(time)], removed)

    def _forward(
        self,
        encoded: Encoded,
        memory: Tensor,
        actions: Tensor,
        time: list[Tensor],
        removed: Tensor | None = None,
    ) -> StepOutput:
        layout = self.layout()
        sequence = torch.cat([encoded.prefix, memory, encoded.text, actions, encoded.stop, *time], dim=1)
        if self.config.precision == "bfloat16":
            sequence = sequence.to(torch.bfloat16)
        with self.computing(sequence.device):
            hidden = self._hidden(layout, sequence, encoded.text_lengths, removed)
            predicted = self.head(hidden[:, layout.action_read])
        # The output has the dtype of the carried memory, so the update rule and the loss compute in this dtype.
        return StepOutput(predicted.to(memory.dtype), hidden[:, layout.memory_slice].to(memory.dtype))

    def _hidden(self, layout: Layout, sequence: Tensor, lengths: Tensor, removed: Tensor | None) -> Tensor:
        """Returns (B, S, D) states after the closing norm.

        Without padding, slots in which no token is removed get a second pass. So they get the same kernels, and the
        same bits, as beside neighbours with whole memories.
        """
        where = None if removed is None else removed.any(dim=1)
        if where is None or not where.any():
            return self._language(sequence, *self._plan(layout, lengths))
        masked = replace(layout, padded=True)
        segments = masked.segments(lengths, removed.to(sequence.device))
        plan = AttentionPlan(masked, segments, self.config.guard, self.config.attention)
        hidden = self._language(sequence, plan, layout.positions(lengths))
        if layout.padded or where.all():
            return hidden
        whole = self._language(sequence, *self._plan(layout, lengths))
        return torch.where(where.to(sequence.device)[:, None, None], hidden, whole)

    def _language(self, sequence: Tensor, plan: AttentionPlan, positions: Tensor) -> Tensor:
        return self.language(inputs_embeds=sequence, position_ids=positions, plan=plan).last_hidden_state

    def _plan(self, layout: Layout, text_lengths: Tensor) -> tuple[AttentionPlan, Tensor]:
        guard, backend = self.config.guard, self.config.attention
        if not layout.padded:
            return _unpadded_plan(layout, guard, backend, str(text_lengths.device))
        return AttentionPlan(layout, layout.segments(text_lengths), guard, backend), layout.positions(text_lengths)


@lru_cache(maxsize=64)
def _unpadded_plan(layout: Layout, guard: str, backend: str, device: str) -> tuple[AttentionPlan, Tensor]:
    """Returns one plan and (1, S) positions for every batch size: without padding all rows are alike."""
    length = torch.tensor([layout.text], device=device)
    return AttentionPlan(layout, layout.segments(length), guard, backend), layout.positions(length)


@torch.no_grad()
def leak_test(policy: Policy, encoded: Encoded, memory: Tensor) -> float:
    """Returns the largest change of the written memory when the embeddings of ACTION, STOP and TIME are perturbed.

    The result is exactly 0.0 under `context`. The test runs at start-up and in every evaluation.

    Raises:
        NotAMeasurement: the guard `context` leaks.
    """
    if memory.shape[1] == 0:
        return 0.0
    layout = policy.layout()
    tokens = layout.action + 2
    ramp = torch.linspace(-1, 1, tokens * memory.shape[2], device=memory.device, dtype=memory.dtype)
    guarded = ramp.view(1, tokens, -1).expand(len(memory), -1, -1)
    written = [policy.perturbed(encoded, memory, each).memory for each in (torch.zeros_like(guarded), guarded)]
    moved = written[0] - written[1]
    leak = moved.abs().max().item()
    if policy.config.guard == "context" and leak != 0.0:
        raise NotAMeasurement(
            "model.guard",
            got=f"a memory that moved by {leak:.3g} when the guarded embeddings were perturbed",
            expected="exactly 0 under the guard `context`",
            remedy="set another model.attention and report this as a bug; results of this backend are no measurements",
        )
    return leak
