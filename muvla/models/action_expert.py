"""The action expert: a diffusion transformer that is conditioned on one feature, or on a window of features.

Published in CogACT (one feature), MemoryVLA (one feature and perceptual tokens) and CronusVLA (a window). The feature
is the cognition token: the language model's final state at the closing token.

Legend: B rows, H chunk, A action dim, D width of a feature, M + 1 features of a window, n perceptual tokens of width d,
h width of the expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muvla.config.expert import ExpertConfig
from muvla.memory.contract import Conditions
from muvla.memory.feature_fifo import ConditionTokens
from muvla.models.expert_layers import (
    NORM_EPS,
    ExpertBlock,
    GeneratorOf,
    LevelEmbedding,
    PerceptionAttention,
    WindowAttention,
    draw_normal,
    draw_xavier,
)
from muvla.models.expert_sampling import sample_ddim, sample_ddpm


@dataclass(frozen=True)
class Condition:
    """The condition of the expert, beside the noise level."""

    features: Tensor  # (B, 1, D) the cognition token; or (B, M + 1, D) a window, the current feature last
    perception: Tensor | None = None  # (B, n, d)

    def repeated(self, times: int) -> Condition:
        """All rows, `times` times over."""
        parts = (self.features, self.perception)
        return Condition(*(None if x is None else x.repeat(times, 1, 1) for x in parts))


class ActionExpert(nn.Module):
    """Predicts the noise in actions (B, H, A).

        sequence    [noise level + W_c c ; W_x a_1 ; … ; W_x a_H] + positions       with one feature c
        sequence    [noise level ; W_x a_1 ; … ; W_x a_H] + positions               with a window
        context     W_p of the perceptual tokens, or the condition tokens of the window

    The condition token is a query of the cross-attention, too. The output leaves its row out.

    Args:
        config: sizes, noise and sampling.
        conditions: what the memory gives as condition.
        chunk: H.
        action_dim: A.
        width: D.
    """

    def __init__(self, config: ExpertConfig, conditions: Conditions, chunk: int, action_dim: int, width: int):
        super().__init__()
        h = config.width
        self.config, self.chunk, self.action_dim = config, chunk, action_dim
        self.positions = nn.Parameter(torch.empty(1 + chunk, h))
        self.noisy, self.level = nn.Linear(action_dim, h), LevelEmbedding(h)
        self.null = nn.Parameter(torch.empty(conditions.window or 1, width))
        self.windowed = conditions.window is not None
        self.feature = None if self.windowed else nn.Linear(width, h)
        self.window = ConditionTokens(conditions.window - 1, width, h) if self.windowed else None
        self.perception = nn.Linear(conditions.perception, h) if conditions.perception else None

        def build_cross() -> nn.Module | None:
            if self.windowed:
                return WindowAttention(h, config.heads)
            return PerceptionAttention(h, config.heads) if conditions.perception else None

        self.blocks = nn.ModuleList(ExpertBlock(h, config.heads, build_cross()) for _ in range(config.layers))
        self.norm = nn.LayerNorm(h, elementwise_affine=False, eps=NORM_EPS)
        self.out = nn.Linear(h, action_dim)

    def initialise_parameters(self, generator_of: GeneratorOf) -> None:
        """Draws the released initial values: Glorot matrices, small embeddings, and an output of zeros."""
        for name, parameter in self.named_parameters():
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "bias":
                parameter.zero_()
            elif parameter.ndim == 1:  # the weight of a norm
                parameter.fill_(1.0)
            elif name.startswith("positions"):
                draw_normal(parameter, self.config.width**-0.5, generator_of(name))
            elif name.startswith(("noisy.", "level.", "null", "feature.", "window.", "perception.")):
                draw_normal(parameter, 0.02, generator_of(name))
            else:
                draw_xavier(parameter, generator_of(name))
        for i, block in enumerate(self.blocks):
            if isinstance(block.cross, PerceptionAttention):
                named = lambda name, i=i: generator_of(f"blocks.{i}.cross.{name}")  # noqa: E731
                block.cross.initialise(self.config.per_attn_init == "released", named)
        self.out.weight.zero_()

    def forward(self, actions: Tensor, level: Tensor, condition: Condition, dropped: Tensor | None = None) -> Tensor:
        """Returns the noise (B, H, A) that the expert predicts.

        Args:
            actions: (B, H, A) noisy.
            level: (B,) noise levels.
            condition: of B rows.
            dropped: (B,) bool, rows whose features are the learned null condition; None: no row.
        """
        features = condition.features
        if dropped is not None:
            features = torch.where(dropped[:, None, None], self.null.to(features.dtype), features)
        first = self.level(level)[:, None]
        if self.windowed:
            context = self.window(features)
        else:
            first = first + self.feature(features)
            context = None if self.perception is None else self.perception(condition.perception)
        x = torch.cat([first, self.noisy(actions)], dim=1) + self.positions
        for block in self.blocks:
            x = block(x, context)
        return self.out(self.norm(x))[:, 1:]

    def guided(self, actions: Tensor, level: Tensor, condition: Condition) -> Tensor:
        """Returns the noise after guidance: away from what the null condition predicts.

        Perceptual tokens are the same under both conditions: guidance amplifies the features alone.
        """
        scale = self.config.guidance
        if scale == 1:
            return self(actions, level, condition)
        rows = len(actions)
        dropped = torch.arange(2 * rows, device=actions.device) >= rows
        both = self(actions.repeat(2, 1, 1), level.repeat(2), condition.repeated(2), dropped)
        given, without = both.chunk(2)
        guided = without + scale * (given - without)
        if self.config.guided_axis == "action":
            return guided
        return torch.cat([guided[:, : self.action_dim], given[:, self.action_dim :]], dim=1)

    @property
    def draws(self) -> int:
        """Draws of noise (H, A) that one sampling takes: the start, and what DDPM adds."""
        return 1 if self.config.sampler == "ddim" else self.config.steps

    def sample(self, noise: Tensor, condition: Condition) -> Tensor:
        """Turns noise into actions (B, H, A).

        Args:
            noise: (draws, B, H, A).
            condition: of B rows.
        """
        config = self.config

        def predict(actions: Tensor, level: Tensor) -> Tensor:
            return self.guided(actions, level, condition).to(actions.dtype)

        if config.sampler == "ddpm":
            return sample_ddpm(noise, predict, config.steps)
        return sample_ddim(noise[0], predict, config.steps, config.stride)

    def flops(self) -> int:
        """Floating-point operations of one pass, per row, without the attention's scores."""
        per_token = sum(p.numel() for block in self.blocks for p in block.parameters() if p.ndim == 2)
        return 2 * (1 + self.chunk) * per_token
