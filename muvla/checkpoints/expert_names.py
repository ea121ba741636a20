"""Names and shapes of the training files of Prismatic: CogACT, MemoryVLA and CronusVLA (MemoryVLA spec 1 to 3, 13).

A training file holds `{"model": {module: {name: tensor}}}`. A full name here is `module.name`. Towers, projector and
language model are those of OpenVLA under other names; action expert and banks have rules of their own.

Legend: D width of the language model, h width of the expert.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from muvla.checkpoints import names
from muvla.checkpoints.names import Rule, Shapes
from muvla.config.model import SizeConfig
from muvla.memory.bank import BankMemory
from muvla.memory.bank_config import COGNITIVE, PERCEPTUAL
from muvla.models.action_expert import ActionExpert
from muvla.models.policy import Policy

# Beginnings and parts of OpenVLA's names → Prismatic's.
RENAMED = (
    ("vision_backbone.featurizer.", "vision_backbone.dino_featurizer."),
    ("vision_backbone.fused_featurizer.", "vision_backbone.siglip_featurizer."),
    ("projector.fc1.", "projector.projector.0."),
    ("projector.fc2.", "projector.projector.2."),
    ("projector.fc3.", "projector.projector.4."),
    ("language_model.", "llm_backbone.llm."),
    (".scale_factor", ".gamma"),
)
NET = "action_model.net."
BANKS = {COGNITIVE: "cog_mem_bank.", PERCEPTUAL: "per_mem_bank."}
COMPRESSOR = "per_compr."
LEAVES = ("weight", "bias")


def prismatic_name(name: str) -> str:
    """Prismatic's full name of an OpenVLA tensor."""
    for theirs, here in RENAMED:
        name = name.replace(theirs, here)
    return name


def weight_rules(size: SizeConfig) -> list[Rule]:
    """Returns the rules of towers, projector and language model."""
    return [replace(rule, published=tuple(map(prismatic_name, rule.published))) for rule in names.vla_rules(size)]


def unread_weights(size: SizeConfig) -> Shapes:
    """Returns the tensors that no policy reads: SigLIP's pooling and the language model's output layer."""
    return {prismatic_name(name): shape for name, shape in names.carried_shapes(size).items()}


def unread_expert(width: int, action_dim: int) -> Shapes:
    """Returns the layer of CogACT's expert that no code calls."""
    name = f"{NET}history_embedder.linear"
    return {f"{name}.weight": (width, action_dim), f"{name}.bias": (width,)}


def expert_rules(expert: ActionExpert) -> list[Rule]:
    """Returns the rules of an action expert."""
    layers = {
        "noisy": "x_embedder.linear",
        "level.hidden": "t_embedder.mlp.0",
        "level.out": "t_embedder.mlp.2",
        "out": "final_layer.linear",
    }
    plain = {"positions": "positional_embedding", "null": "z_embedder.uncondition"}
    if expert.windowed:
        plain["window.positions"] = "condition_positional_embedding"
        layers |= {
            "window.past": "z_embedder.linear_0",
            "window.spread": "z_embedder.extend_net.0",
            "window.current": "z_embedder.linear",
        }
    else:
        layers["feature"] = "z_embedder.linear"
    if expert.perception is not None:
        layers["perception"] = "per_token_embedder.linear"
    for i, block in enumerate(expert.blocks):
        layers |= {
            f"blocks.{i}.attention.qkv": f"blocks.{i}.attn.qkv",
            f"blocks.{i}.attention.out": f"blocks.{i}.attn.proj",
            f"blocks.{i}.fc1": f"blocks.{i}.mlp.fc1",
            f"blocks.{i}.fc2": f"blocks.{i}.mlp.fc2",
        }
        if expert.windowed:
            layers |= {
                f"blocks.{i}.cross.{here}": f"blocks.{i}.cross_attn.{there}"
                for here, there in (("query", "q"), ("pair", "kv"), ("out", "proj"))
            }
        elif block.cross is not None:
            layers |= {
                f"blocks.{i}.cross.norm": f"blocks.{i}.norm3",
                f"blocks.{i}.cross.out": f"blocks.{i}.per_attn.out_proj",
            }
            plain |= {f"blocks.{i}.cross.qkv.{leaf}": f"blocks.{i}.per_attn.in_proj_{leaf}" for leaf in LEAVES}
    plain |= {f"{here}.{leaf}": f"{there}.{leaf}" for here, there in layers.items() for leaf in LEAVES}
    return [Rule((f"{NET}{there}",), (f"head.{here}",)) for here, there in plain.items()]


def memory_rules(memory: BankMemory) -> list[Rule]:
    """Returns the rules of a bank: both streams and the compressor, whose layers are 1×1 convolutions."""
    rules = [rule for stream in memory.streams for rule in _stream_rules(memory, stream)]
    if PERCEPTUAL in memory.streams:
        biased = {"excitation.squeeze": "excite.1", "excitation.excite": "excite.3"}
        layers = {f"{here}.{leaf}": f"{there}.{leaf}" for here, there in biased.items() for leaf in LEAVES}
        layers |= {"reduce.weight": "reduce.weight", "expand.weight": "expand.weight"}
        for here, there in layers.items():
            rule = Rule((f"{COMPRESSOR}{there}",), (f"memory.compressor.{here}",))
            rules.append(replace(rule, load=_squeeze, save=_unsqueeze) if here.endswith("weight") else rule)
    return rules


def _squeeze(weight: Tensor) -> tuple[Tensor]:
    return (weight.flatten(1),)


def _unsqueeze(weight: Tensor) -> tuple[Tensor]:
    return (weight[..., None, None],)


def _stream_rules(memory: BankMemory, stream: str) -> Iterator[Rule]:
    module, layers = memory.streams[stream], {}
    for i in range(len(module.retrieval.blocks)):
        for here, there in (
            ("query", "q_proj"),
            ("key", "k_proj"),
            ("value", "v_proj"),
            ("attention_norm", "attn_norm"),
            ("expand", "ffn.0"),
            ("contract", "ffn.2"),
            ("feed_forward_norm", "ffn_norm"),
        ):
            layers[f"retrieval.blocks.{i}.{here}"] = f"retrieval_blocks.{i}.{there}"
    if module.settings.gate:
        layers["fusion.gate"] = "gate_fusion_blocks.proj"
    if module.time_code is not None:
        layers |= {"time_code.hidden": "timestep_encoder.mlp.0", "time_code.out": "timestep_encoder.mlp.2"}
    for here, there in layers.items():
        for leaf in LEAVES:
            yield Rule((f"{BANKS[stream]}{there}.{leaf}",), (f"memory.streams.{stream}.{here}.{leaf}",))


def policy_rules(policy: Policy) -> dict[str, list[Rule]]:
    """Returns the rules of a policy by part: `weights`, `head` with an action expert, and `memory` with a bank."""
    rules = {"weights": weight_rules(policy.config.size)}
    if isinstance(policy.head, ActionExpert):
        rules["head"] = expert_rules(policy.head)
    if isinstance(policy.memory, BankMemory):
        rules["memory"] = memory_rules(policy.memory)
    return rules


def expected_shapes(policy: Policy) -> Shapes:
    """Returns every name and shape of the training file of a policy, without CogACT's unused layer."""
    ours = dict(policy.named_parameters())
    rules = [rule for part in policy_rules(policy).values() for rule in part]
    shapes = {name: shape for rule in rules for name, shape in rule.published_shapes(ours).items()}
    return shapes | unread_weights(policy.config.size)
