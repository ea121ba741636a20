"""Sharded parameters (FSDP2) for policies that do not fit on one GPU.

The blocks of the language model and of the towers, nearly all of the parameters, are sharded: gathered when they
compute, freed afterwards, in every tick's forward pass and again in its backward pass. Everything else (embedding,
projector, proprio, head, memory, FiLM) is called by other ways than `forward` or read outside of any call, and stays
whole on every rank, under the one synchroniser.

Gradients of a block are added up over the ranks at every backward pass, once for all ticks of its truncation block,
into each rank's shard. Adding them up once per update instead would hold them whole until then, as large as the
parameters that are sharded because they do not fit; and every tick gathers the block twice anyway.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from muvla.errors import MuvlaError
from muvla.models.policy import Policy


def shard(policy: Policy, mesh: DeviceMesh) -> None:
    """In place, on the mesh's device; parameters keep their names. Raises MuvlaError for a torch that is too old."""
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise MuvlaError("--shard", got=f"torch {torch.__version__}", expected="2.8 or newer", remedy="upgrade torch")
    blocks = {policy.language: [*policy.language.layers]}
    if policy.film is None:  # else the towers' blocks are written out, not called, and nothing would gather them
        blocks[policy.vision] = [*policy.vision.dino.encoder.layer, *policy.vision.siglip.encoder.layers]
    for root, own in blocks.items():
        for block in own:
            fully_shard(block, mesh=mesh)
        # Over all blocks, so that the next one is gathered while one computes.
        fully_shard(root, mesh=mesh, ignored_params={p for p in root.parameters() if not is_sharded(p)})
    # The towers' output is a view, which nobody changes in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the window of all ranks
            module.set_force_sum_reduction_for_comms(True)


def is_sharded(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def groups(named: list[tuple[str, nn.Parameter]]) -> list[list[tuple[str, nn.Parameter]]]:
    """Whole ones and sharded ones: no kernel takes both."""
    return [[pair for pair in named if is_sharded(pair[1]) == sharded] for sharded in (False, True)]


def clip(parameters: list[nn.Parameter], limit: float) -> float:
    """As `clip_grad_norm_`, over whole and sharded gradients."""
    kinds = [[p for p in parameters if p.grad is not None and is_sharded(p) == sharded] for sharded in (False, True)]
    norms = [nn.utils.get_total_norm([p.grad for p in kind]) for kind in kinds]
    norm = torch.stack([n.full_tensor() if is_sharded(n) else n for n in norms]).norm()
    if math.isfinite(limit):
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, limit, norm)
    return float(norm)


def whole(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Every rank takes part, one tensor after the other; only who keeps them holds them, in its main memory."""
    gathered = {}
    for name, tensor in tensors.items():
        full = tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()
        if keep:
            gathered[name] = full.cpu()
    return gathered


def shard_like(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, sharded as `own` has it under the same name, or under that of an optimizer's `name/…`."""
    return {name: _placed(tensor, own.get(name, own.get(name.rsplit("/", 1)[0]))) for name, tensor in tensors.items()}


def _placed(tensor: Tensor, like: Tensor | None) -> Tensor:
    if like is None or not is_sharded(like) or tensor.shape != like.shape:
        return tensor  # also an optimizer's count of its steps, and what does not fit, which is told elsewhere
    # Every rank has read the same file, so nobody sends anything.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
