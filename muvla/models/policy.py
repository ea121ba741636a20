"""The OpenVLA-OFT policy with MEMORY tokens: one tick from an encoded observation and a memory to an action chunk.

Legend: N frames, B slots, V cameras, P patches, S sequence, T text, m memory, D width, H chunk, A action dim, Q
proprio.

A tick has two halves. `encode` holds everything that does not recur (vision, projector, proprio, text embedding) and
may run on many ticks at once. `step` is the language model, the only part that sees the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from muvla.config import ModelConfig
from muvla.envs.target_words import add_target
from muvla.errors import MuvlaError
from muvla.memory.base import Memory
from muvla.memory.contract import Dimensions, Observed, Retrieved, Taps
from muvla.models.action_expert import ActionExpert, Condition
from muvla.models.attention import ATTENTION_NAME
from muvla.models.attention_plan import AttentionPlan
from muvla.models.constants import DEFAULT, Constants
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
    first_image: bool = False  # the last image is the first seen camera's at the episode's first step
    robot_cameras: int | None = None  # number of the robot's cameras, where the policy sees only a part of them
    target_in_text: bool = False  # the instruction names the target (`data.instruction`)
    camera_numbers: tuple[int, ...] | None = None  # of the robot's cameras; None: the first `cameras`

    @property
    def seen(self) -> list[int]:
        """Numbers of the robot's cameras that the policy sees, in its order."""
        return list(self.camera_numbers or range(self.cameras - self.first_image))

    def instruction(self, facts: Mapping[str, Any]) -> str:
        """The instruction of an episode for the policy, from its `StepInfo` or its line in a store."""
        return add_target(facts) if self.target_in_text else facts["instruction"]


def dimensions_of(config: ModelConfig, interface: Interface) -> Dimensions:
    """The sizes that a memory mechanism of such a policy is built for."""
    size = config.size
    return Dimensions(
        width=size.width,
        features=size.dino.width + size.siglip.width,
        vision=interface.cameras * size.patches,
        proprio=interface.proprio_dim,
        chunk=config.chunk,
        action=interface.action_dim,
        cameras=interface.cameras,
        image_size=size.image_size,
        states=int(config.head == "expert"),
    )


def layout_of(config: ModelConfig, interface: Interface, m: int) -> Layout:
    """The token sequence of such a policy with m MEMORY tokens."""
    return Layout(
        vision=interface.cameras * config.size.patches,
        memory=m,
        text=interface.text,
        action=0 if config.head == "expert" else config.chunk * interface.action_dim,
        reserve=config.reserve if config.memory_positions == "reserved" else m,
        padded=interface.text_padded,
        proprio=int(config.proprio),
        time=int(config.head == "diffusion"),
        causal=config.causal,
    )


@dataclass(frozen=True)
class Encoded:
    """The non-recurrent part of N frames."""

    prefix: Tensor  # (N, 1 + V·P + 1, D) BOS, VISION, and PROPRIO where the policy has it
    text: Tensor  # (N, T, D)
    stop: Tensor  # (N, 1, D)
    text_lengths: Tensor  # (N,)
    proprio: Tensor | None = None  # (N, Q) normalised
    features: Tensor | None = None  # (N, V, P, F), where the memory observes features
    pixels: Tensor | None = None  # (N, V, 3, s, s) uint8, where the memory observes pixels

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that carry gradient."""
        return (self.prefix, self.text, self.stop, *([] if self.features is None else [self.features]))

    def __getitem__(self, rows: slice) -> Encoded:
        optional = (None if t is None else t[rows] for t in (self.proprio, self.features, self.pixels))
        return Encoded(self.prefix[rows], self.text[rows], self.stop[rows], self.text_lengths[rows], *optional)

    def leaves(self) -> Encoded:
        """The same values as new leaves, so that several backward passes can collect their gradient."""
        prefix, words, stop, *features = (t.detach().requires_grad_(t.requires_grad) for t in self.tensors())
        return replace(self, prefix=prefix, text=words, stop=stop, features=features[0] if features else None)


Retrieve = Callable[[Taps], Retrieved | None]
Head = Callable[[Tensor, Tensor | None], Tensor]  # (states at `Layout.action_read`, perceptual tokens) → (B, H, A)


@dataclass(frozen=True)
class StepOutput:
    """One tick of B slots."""

    actions: Tensor  # (B, H, A) normalised
    taps: Taps  # final hidden states that a memory may write, after the closing norm (spec 2.2)
    retrieved: Retrieved | None = None  # what the memory looked up, after interventions

    @property
    def memory(self) -> Tensor:
        """(B, m, D) final hidden states at the MEMORY rows."""
        return self.taps.memory


class Policy(nn.Module):
    """A vision-language-action policy with a memory: encoders, language model, memory mechanism and action head."""

    def __init__(
        self,
        config: ModelConfig,
        memory: Memory,
        interface: Interface,
        prompts: Prompts | None = None,
        constants: Constants = DEFAULT,
    ):
        """Builds the policy.

        Args:
            config: architecture and precision.
            memory: the mechanism.
            interface: inputs and outputs of the robot.
            prompts: tokenizer and prompt; None is the package's.
            constants: numbers that a starting checkpoint stores beside its weights.
        """
        super().__init__()
        self.config, self.interface, self.memory = config, interface, memory
        self.prompts, self.constants = prompts or built_in_prompts(), constants
        size = config.size
        self.vision = FusedVision(size, constants, config.class_token == "one")
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
                rms_norm_eps=constants.norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": constants.rope_theta},
                attn_implementation=ATTENTION_NAME,
                use_cache=False,
            )
        )
        if config.head == "expert":
            conditions = memory.conditions
            self.head = ActionExpert(config.expert, conditions, config.chunk, interface.action_dim, size.width)
        else:
            self.head = ActionHead(config.chunk, interface.action_dim, size.width)
        self.noisy = NoisyActions(size.width) if config.head == "diffusion" else None
        self.calls = 0  # calls of `step`, for the run-time check against ticks and memory writes

    def checkpoint_gradients(self) -> None:
        """Holds only a block's inputs in the forward pass and recomputes the block in the backward pass.

        The numbers stay the same for less memory and more time, also with the graphs of several ticks alive at once.
        """
        for part in (self.language, self.vision.dino, self.vision.siglip):
            part.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def noise_draws(self) -> int:
        """Draws of noise (H, A) that a tick takes; 0 for a head that denoises nothing."""
        return self.head.draws if isinstance(self.head, ActionExpert) else int(self.noisy is not None)

    @property
    def outputs(self) -> Literal["open", "clipped", "binary"]:
        """Limits of the actions before they are scaled back, see `muvla.data.normalization.Outputs`."""
        return self.config.expert.outputs if isinstance(self.head, ActionExpert) else "open"

    def layout(self) -> Layout:
        return layout_of(self.config, self.interface, self.memory.tokens)

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
        language = self._language_of(bos, words, stop, text_lengths)
        with self.computing(text_ids.device):
            proprio_token = [self.proprio(proprio)] if self.proprio else []
            if features is None:
                features = self.vision.features(images, self.film, language)
            prefix = torch.cat([bos, self.vision.project(features), *proprio_token], dim=1)
        kept = {name: {"features": features, "pixels": images}[name] for name in self.memory.observes}
        if "pixels" in kept and images is None:
            raise MuvlaError(
                "--cache-vision",
                got=f"memory.kind={self.memory.config.kind}, which observes pixels",
                expected="a mechanism that observes no pixels, where vision features are cached",
                remedy="train without the cache of vision features",
            )
        return Encoded(prefix, words, stop, text_lengths, proprio, **kept)

    def _language_of(self, bos: Tensor, words: Tensor, stop: Tensor, lengths: Tensor) -> Tensor | None:
        """(N, D) the prompt's mean embedding, by which FiLM modulates the towers; None without FiLM."""
        return None if self.film is None else average_language(bos, words, stop, lengths)

    def encode_pixels(self, encoded: Encoded, pixels: Tensor) -> Tensor:
        """(N, V·P, D) projected patches of other images (N, V, 3, s, s) uint8, under the prompts of `encoded`."""
        language = self._language_of(encoded.prefix[:, :1], encoded.text, encoded.stop, encoded.text_lengths)
        with self.computing(pixels.device):
            return self.vision.project(self.vision.features(pixels, self.film, language))

    def observe(self, encoded: Encoded) -> Observed:
        """Returns the view of an encoded observation that a memory mechanism gets; nothing is copied."""
        return Observed(
            vision=encoded.prefix[:, 1 : 1 + self.interface.cameras * self.config.size.patches],
            text=encoded.text,
            text_lengths=encoded.text_lengths,
            proprio=encoded.proprio,
            features=encoded.features,
            pixels=encoded.pixels,
            encode=partial(self.encode_pixels, encoded),
        )

    def computing(self, device: torch.device) -> torch.autocast:
        """Computes matrix products in bfloat16 if the cell says so; sums, norms and trained parameters keep their
        dtype."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def step(
        self,
        encoded: Encoded,
        memory: Tensor,
        noise: Tensor | None = None,
        removed: Tensor | None = None,
        retrieve: Retrieve | None = None,
        states: Tensor | None = None,
    ) -> StepOutput:
        """One tick of B slots.

        A diffusion head denoises `noise`. The memory is written in the last pass; under the guard `context` every pass
        would write the same. An action expert denoises behind a single pass.

        Args:
            encoded: observations of B slots.
            memory: (B, m, D) tokens that `Memory.read` returned.
            noise: (B, H, A) for a diffusion head, (`noise_draws`, B, H, A) for an action expert.
            removed: (B, m) bool. No row sees a removed token, and every other token keeps its position; the output at
                the row of a removed token means nothing.
            retrieve: looks up, from the taps of a pass, what the action head reads beside its states.
            states: (B, S, D) that `run_model` returned for these observations; not for a diffusion head.
        """
        self.calls += 1
        if self.noisy is None:
            if states is None:
                states = self.run_model(encoded, memory, removed)
            return self._finish(encoded, states, memory.dtype, retrieve, self._sampling(noise))
        passes: list[StepOutput] = []

        def predict(actions: Tensor, time: Tensor) -> Tensor:
            passes[:] = [self._predict(encoded, memory, actions, time, removed, retrieve)]
            return passes[0].actions

        actions = denoise(noise, predict)
        return replace(passes[0], actions=actions)

    def run_model(self, encoded: Encoded, memory: Tensor, removed: Tensor | None = None) -> Tensor:
        """The language model's pass of N frames, without a diffusion head.

        Args:
            encoded: observations of N frames.
            memory: (N, m, D) MEMORY tokens.
            removed: (N, m) bool, see `step`.

        Returns:
            (N, S, D) states after the closing norm.
        """
        slots = encoded.prefix.new_zeros(len(memory), self.layout().action, encoded.prefix.shape[-1])  # spec 1.5
        return self._states(encoded, memory, slots, [], removed)

    def predict_noise(
        self,
        encoded: Encoded,
        memory: Tensor,
        noised: Noised,
        removed: Tensor | None = None,
        retrieve: Retrieve | None = None,
        states: Tensor | None = None,
    ) -> StepOutput:
        """Run one tick of the training of a head that denoises.

        Args:
            encoded: as in `step`.
            memory: as in `step`.
            noised: the noised actions and their diffusion time; for an action expert in several draws, R·B rows.
            removed: as in `step`.
            retrieve: as in `step`.
            states: as in `step`.

        Returns:
            The output of the tick; its `actions` are the noise that the head predicts in `noised`.
        """
        self.calls += 1
        if self.noisy is None:
            if states is None:
                states = self.run_model(encoded, memory, removed)
            return self._finish(encoded, states, memory.dtype, retrieve, self._denoising(noised))
        return self._predict(encoded, memory, noised.actions, noised.time, removed, retrieve)

    def perturbed(
        self, encoded: Encoded, memory: Tensor, guarded: Tensor, retrieve: Retrieve | None = None
    ) -> StepOutput:
        """Run the pass with other embeddings of ACTION, STOP and TIME, for the guard's leak test.

        An action expert has none of these tokens. Its noisy actions are perturbed instead.

        Args:
            encoded: as in `step`.
            memory: as in `step`.
            guarded: embeddings (B, H·A + 2, D) for ACTION, STOP and TIME; STOP's is added to the learned one.
            retrieve: as in `step`.
        """
        if self.noisy is None and self.noise_draws:
            noise = guarded[:, 0, 0, None, None].expand(-1, self.config.chunk, self.interface.action_dim)
            noised = Noised(noise, noise, torch.zeros(len(noise), dtype=torch.int64, device=noise.device))
            states = self.run_model(encoded, memory)
            return self._finish(encoded, states, memory.dtype, retrieve, self._denoising(noised))
        slots, stop, time = guarded.split([self.layout().action, 1, 1], dim=1)
        perturbed = replace(encoded, stop=encoded.stop + stop)
        return self._forward(perturbed, memory, slots, [time] * self.layout().time, None, retrieve)

    def _predict(
        self,
        encoded: Encoded,
        memory: Tensor,
        actions: Tensor,
        time: Tensor,
        removed: Tensor | None = None,
        retrieve: Retrieve | None = None,
    ) -> StepOutput:
        with self.computing(actions.device):
            slots = self.noisy(actions)
        return self._forward(encoded, memory, slots, [self.noisy.time(time)], removed, retrieve)

    def _forward(
        self,
        encoded: Encoded,
        memory: Tensor,
        actions: Tensor,
        time: list[Tensor],
        removed: Tensor | None,
        retrieve: Retrieve | None,
    ) -> StepOutput:
        states = self._states(encoded, memory, actions, time, removed)
        return self._finish(encoded, states, memory.dtype, retrieve, lambda read, _: self.head(read))

    def _sampling(self, noise: Tensor | None) -> Head:
        """The head's work at a query: predict actions, or denoise (draws, B, H, A)."""
        if not self.noise_draws:
            return lambda read, _: self.head(read)
        return lambda read, perception: self.head.sample(noise, Condition(read, perception))

    def _denoising(self, noised: Noised) -> Head:
        """The expert's work in training: predict the noise in R draws of each slot's actions."""

        def predict(read: Tensor, perception: Tensor | None) -> Tensor:
            condition = Condition(read, perception).repeated(len(noised.actions) // len(read))
            return self.head(noised.actions, noised.time, condition, noised.dropped)

        return predict

    def _states(
        self, encoded: Encoded, memory: Tensor, actions: Tensor, time: list[Tensor], removed: Tensor | None
    ) -> Tensor:
        layout = self.layout()
        sequence = torch.cat([encoded.prefix, memory, encoded.text, actions, encoded.stop, *time], dim=1)
        if self.config.precision == "bfloat16":
            sequence = sequence.to(torch.bfloat16)
        with self.computing(sequence.device):
            return self._hidden(layout, sequence, encoded.text_lengths, removed)

    def _finish(
        self, encoded: Encoded, hidden: Tensor, dtype: torch.dtype, retrieve: Retrieve | None, head: Head
    ) -> StepOutput:
        """The part of a tick behind the language model: taps, search, place and head."""
        layout = self.layout()
        # Taps and actions have the precision of what is carried, so that an update rule and a loss compute in it.
        taps = Taps(
            hidden[:, layout.memory_slice].to(dtype),
            hidden[:, layout.summary].to(dtype),
            self.observe(encoded),
        )
        retrieved = None if retrieve is None else retrieve(taps)
        states, perception = hidden[:, layout.action_read], None
        if retrieved is not None:
            injected, perception = self.memory.inject(retrieved, states), retrieved.perception
            skipped = retrieved.skipped
            states = injected if skipped is None else torch.where(skipped[:, None, None], states, injected)
            if skipped is not None and perception is not None:
                perception = torch.where(skipped[:, None, None], retrieved.perception_now, perception)
        with self.computing(hidden.device):
            actions = head(states, perception)
        return StepOutput(actions.to(dtype), taps, retrieved)

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
