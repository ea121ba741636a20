"""A policy with the weights of a golden set, whose language model and towers are replaced by given numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from helpers.published_expert import ours
from muvla.config import MemoryConfig, ModelConfig
from muvla.config.expert import ExpertConfig
from muvla.config.model import SizeConfig, TowerConfig
from muvla.envs.phases import Phase
from muvla.memory.registry import build_memory
from muvla.models.diffusion import Noised
from muvla.models.policy import Encoded, Interface, Policy, StepOutput, dimensions_of
from muvla.recurrence import Moment, Recurrence

# The golden sizes: 4×4 patches of 10 and 14 numbers, and a language model of width 32.
SIZE = SizeConfig(
    name="golden",
    image_size=32,
    patch=8,
    dino=TowerConfig(width=10, layers=2, heads=1, mlp=20),
    siglip=TowerConfig(width=14, layers=2, heads=1, mlp=28),
    width=32,
    layers=1,
    heads=1,
    mlp=32,
    vocabulary=64,
)
BANK = {"cog_mem_bank": "cognitive", "per_mem_bank": "perceptual"}
BLOCK = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "attn_norm": "attention_norm",
    "ffn.0": "expand",
    "ffn.2": "contract",
    "ffn_norm": "feed_forward_norm",
}
COMPRESSOR = {"excite.1": "excitation.squeeze", "excite.3": "excitation.excite"}


def our_name(name: str, windowed: bool = False) -> str:
    """Our name of a parameter of a published training file."""
    module, rest = name.split(".", 1)
    if module == "action_model":
        return f"head.{ours(rest.removeprefix('net.'), windowed)}"
    layer, leaf = rest.rsplit(".", 1)
    if module == "per_compr":
        return f"memory.compressor.{COMPRESSOR.get(layer, layer)}.{leaf}"
    for published, here in (
        ("timestep_encoder.mlp.0", "time_code.hidden"),
        ("timestep_encoder.mlp.2", "time_code.out"),
        ("gate_fusion_blocks.proj", "fusion.gate"),
    ):
        layer = layer.replace(published, here)
    if layer.startswith("retrieval_blocks."):
        _, index, part = layer.split(".", 2)
        layer = f"retrieval.blocks.{index}.{BLOCK[part]}"
    return f"memory.streams.{BANK[module]}.{layer}.{leaf}"


def load_policy(golden, memory: MemoryConfig, chunk: int, cameras: int = 1, dtype=torch.float32, **expert) -> Policy:
    """The policy with the weights of a set; every weight of the set must have a place.

    Args:
        golden: the set.
        memory: the mechanism.
        chunk: H.
        cameras: V.
        dtype: precision.
        expert: fields of the expert's configuration.
    """
    config = ModelConfig(
        SIZE,
        chunk=chunk,
        head="expert",
        causal=True,
        proprio=False,
        expert=ExpertConfig(layers=2, width=32, heads=4, **expert),
    )
    interface = Interface(cameras=cameras, proprio_dim=1, action_dim=7, text=4, text_padded=False)
    policy = Policy(config, build_memory(memory, dimensions_of(config, interface)), interface)
    windowed = memory.kind == "feature_fifo"
    loaded = {our_name(name, windowed): t for name, t in golden.weights("").items()}
    loaded = {name: t[..., 0, 0] if t.ndim == 4 else t for name, t in loaded.items()}
    missing, unexpected = policy.load_state_dict(loaded, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith(("head.", "memory."))]
    return policy.to(dtype).eval()


@dataclass
class Player:
    """Ticks of a recurrence with given states of the language model and given noise."""

    policy: Policy
    slots: int
    writes: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.loop = Recurrence(self.policy, self.slots)

    def tick(
        self,
        cognition: Tensor,
        patches: Tensor | None,
        first: list[bool],
        times: list[int],
        noised: Noised | None = None,
        noise: Tensor | None = None,
    ) -> StepOutput:
        """One tick of all slots.

        Args:
            cognition: (B, D) states at the cognition token.
            patches: (B, V·P, F); None for a mechanism that does not observe them.
            first: slots that start an episode.
            times: environment steps.
            noised: noisy labels, in training.
            noise: (draws, B, H, A), at a query.
        """
        layout, slots = self.policy.layout(), len(cognition)
        states = cognition.new_zeros(slots, layout.length, cognition.shape[-1])
        states[:, layout.summary] = cognition
        zeros = cognition.new_zeros
        width = cognition.shape[-1]
        features = None if patches is None else patches.unflatten(1, (self.policy.interface.cameras, -1))
        encoded = Encoded(
            zeros(slots, 1 + layout.vision, width),
            zeros(slots, layout.text, width),
            zeros(slots, 1, width),
            torch.full((slots,), layout.text),
            features=features,
        )
        moment = Moment(times, [Phase.UNKNOWN] * slots, [str(i) for i in range(slots)], [0] * slots)
        if noise is not None:
            self.loop._noise = lambda moment, like: noise
        output, _ = self.loop.tick(encoded, torch.tensor(first), moment, noised=noised, states=states)
        return output
