"""Sharded parameters (FSDP2) for policies that do not fit on one GPU.

The blocks of the language model and of the towers hold nearly all parameters, and these blocks are sharded. A block is
gathered when it computes and freed afterwards, in every tick's forward pass and again in its backward pass. Everything
else (embedding, projector, proprio, head, memory, FiLM) is called by other methods than `forward`, or read outside of
any call. It stays whole on every rank, and the synchroniser of `torchrun` sums its gradient.

Every backward pass sums a block's gradient over the ranks into each rank's shard, once for all ticks of a truncation
block. A sum once per update would hold whole gradients until then, as large as the parameters that are sharded because
they do not fit. Every tick gathers the block twice in any case.
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
    """Shards the policy in place, on the mesh's device; parameters keep their names. Raises MuvlaError if torch is too
    old."""
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise MuvlaError(
            "--shard", got=f"torch {torch.__version__}", expected="torch 2.8 or newer", remedy="install a newer torch"
        )
    blocks = {policy.language: [*policy.language.layers]}
    if policy.film is None:  # with FiLM the towers' blocks are written out, not called, so nothing would gather them
        blocks[policy.vision] = [*policy.vision.dino.encoder.layer, *policy.vision.siglip.encoder.layers]
    for root, members in blocks.items():
        for block in members:
            fully_shard(block, mesh=mesh)
        # The root spans all blocks, so that FSDP gathers the next block while one computes.
        fully_shard(root, mesh=mesh, ignored_params={p for p in root.parameters() if not is_sharded(p)})
    # The towers' output is a view, and nothing changes this view in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the window of all ranks
            module.set_force_sum_reduction_for_comms(True)


def is_sharded(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def group_parameters(named: list[tuple[str, nn.Parameter]]) -> list[list[tuple[str, nn.Parameter]]]:
    """Splits into whole and sharded parameters: no kernel takes both."""
    return [[pair for pair in named if is_sharded(pair[1]) == sharded] for sharded in (False, True)]


def clip(parameters: list[nn.Parameter], limit: float) -> float:
    """Clips whole and sharded gradients together, as `clip_grad_norm_` does; returns the norm before clipping."""
    groups = [[p for p in parameters if p.grad is not None and is_sharded(p) == sharded] for sharded in (False, True)]
    norms = [nn.utils.get_total_norm([p.grad for p in group]) for group in groups]
    norm = torch.stack([n.full_tensor() if is_sharded(n) else n for n in norms]).norm()
    if math.isfinite(limit):
        for group in groups:
            nn.utils.clip_grads_with_norm_(group, limit, norm)
    return float(norm)


def gather(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Gathers sharded tensors, one after the other; every rank must call this function.

    Only a rank with `keep` holds the whole tensors, in main memory.
    """
    gathered = {}
    for name, tensor in tensors.items():
        full = tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()
        if keep:
            gathered[name] = full.cpu()
    return gathered


def shard_like(tensors: dict[str, Tensor], parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shards whole tensors as the parameter of the same name is; an optimizer's tensor `name/…` as the parameter
    `name`."""
    return {
        name: _shard(tensor, parameters.get(name, parameters.get(name.rsplit("/", 1)[0])))
        for name, tensor in tensors.items()
    }


def _shard(tensor: Tensor, like: Tensor | None) -> Tensor:
    if like is None or not is_sharded(like) or tensor.shape != like.shape:
        return tensor  # also an optimizer's step count, and tensors of a wrong shape, which the loader refuses
    # Every rank has read the same file, so no rank sends anything.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
