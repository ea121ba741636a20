"""The ranks of a training that torchrun has started: what they exchange, and how they end when one is lost.

Nothing hooks into the backward pass: when all truncation blocks are done, one synchroniser adds up the gradient of
every trained tensor, so that it does not matter how often a tensor was used before. Under `--shard` the blocks' own
gradients are added up by FSDP (`muvla.training.distributed.fsdp`).

What one rank raises, all raise. A rank that dies closes its connections, and the others end with RankLost; one that
hangs is given up after TIMEOUT.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.rendezvous import rendezvous

from muvla import errors
from muvla.errors import MuvlaError, NotAMeasurement, RankLost
from muvla.models.policy import Policy
from muvla.training.distributed import fsdp as sharding
from muvla.training.distributed.base import SINGLE_PROCESS, Named, Ranks
from muvla.training.distributed.memory_state import joined

TIMEOUT = timedelta(minutes=10)  # until a rank that answers nothing is given up
PATIENCE = timedelta(days=2)  # with ranks at long work; that one dies is seen at once
BUCKET = 2**25  # numbers that are added up at once: 128 MB beside the gradients

T = TypeVar("T")


class TorchRanks(Ranks):
    """A rank of several, within `launched`."""

    def __init__(self, rank: int, size: int, sharded: bool, store: dist.Store):
        self.rank, self.size, self.sharded, self._store, self._led = rank, size, sharded, store, 0
        self._patient = dist.new_group(backend="gloo", timeout=PATIENCE)

    @contextlib.contextmanager
    def together(self, patiently: bool = False) -> Iterator[None]:
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
            if not _is_of_a_connection(error):
                self.tell(error)
        failed = torch.tensor(self.rank if error else self.size)
        self._collect(dist.all_reduce, failed, dist.ReduceOp.MIN, group=self._patient if patiently else None)
        if failed == self.rank:
            raise error
        if failed < self.size:
            raise self._told(int(failed)) from error

    def on_main(self, work: Callable[[], T], patiently: bool = False) -> T:
        self._led += 1
        with self.together(patiently):
            if self.is_main:
                self._store.set(f"led {self._led}", json.dumps(work()))
        return json.loads(self._store.get(f"led {self._led}"))

    def assert_equal(self, what: str, value: str) -> None:
        expected = self.on_main(lambda: value)
        with self.together():
            if value != expected:
                raise MuvlaError(
                    f"{what} on rank {self.rank}",
                    got=value,
                    expected=f"{expected}, as on rank 0",
                    remedy="give every machine the same one",
                )

    def any(self, flag: bool) -> bool:
        told = torch.tensor(int(flag))
        self._collect(dist.all_reduce, told, dist.ReduceOp.MAX)
        return bool(told)

    def mean(self, value: Tensor) -> Tensor:
        told = value.detach().clone()
        self._collect(dist.all_reduce, told)
        return told / self.size

    def place(self, policy: Policy, device: str) -> Policy:
        if not self.sharded:
            policy.to(device)  # else block by block: whole, it may not fit there
        for parameter in policy.parameters():
            if parameter.requires_grad:  # the rest is as it was drawn or read, which the check tells
                self._collect(dist.broadcast, parameter.data, 0)
        self.check(policy.named_parameters(), "the start")
        if self.sharded:
            sharding.shard(policy, init_device_mesh(device, (self.size,)))
        return policy.to(device)

    def groups(self, named: Named) -> list[Named]:
        return sharding.groups(named) if self.sharded else [named]

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss: float) -> float:
        """A tensor that no rank has a gradient for keeps none; one that some have counts as zero on the others."""
        own = [p for p in parameters if not sharding.is_sharded(p)]
        told = torch.tensor([loss, *(p.grad is not None for p in own)], dtype=torch.float64)
        self._collect(dist.all_reduce, told)
        loss, *counts = told.tolist()
        reached = [p for p, count in zip(own, counts, strict=True) if count]
        for parameter in reached:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in buckets([p.grad for p in reached]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self._collect(dist.all_reduce, flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))
        return loss

    def clip(self, parameters: list[nn.Parameter], limit: float) -> float:
        if self.sharded:
            return self._collect(sharding.clip, parameters, limit)
        return super().clip(parameters, limit)

    def check(self, named: Iterable[tuple[str, Tensor]], when: str) -> None:
        """What is sharded has no second copy to be compared with."""
        own = {name: checksum(tensor.detach()) for name, tensor in named if not sharding.is_sharded(tensor)}
        mine = torch.tensor(list(own.values()))
        everybody = [torch.empty_like(mine) for _ in range(self.size)]
        self._collect(dist.all_gather, everybody, mine)
        differing = torch.stack(everybody) != everybody[0]  # (ranks, tensors)
        with self.together():
            if differing.any():
                names = [list(own)[i] for i in differing.any(dim=0).nonzero().flatten()]
                ranks = differing.any(dim=1).nonzero().flatten().tolist()
                raise NotAMeasurement(
                    f"parameters at {when}",
                    got=f"other values on rank {', '.join(map(str, ranks))} than on rank 0 in "
                    f"{', '.join(names[:3])}" + ", …" * (len(names) > 3),
                    expected="the same bits on every rank",
                    remedy="report this as a bug, or look for a broken machine; the ranks trained different policies",
                )

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._collect(sharding.whole, tensors, self.is_main) if self.sharded else tensors

    def shard_like(self, tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        return sharding.shard_like(tensors, own) if self.sharded else tensors

    def gather_slots(self, exported: dict[str, Tensor]) -> dict[str, Tensor]:
        content = torch.frombuffer(
            bytearray(save({k: v.cpu().contiguous() for k, v in exported.items()})), dtype=torch.uint8
        )
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        self._collect(dist.all_gather, lengths, torch.tensor(len(content)))
        padded = nn.functional.pad(content, (0, int(max(lengths)) - len(content)))
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self._collect(dist.all_gather, parts, padded)
        return joined(load(part[:n].numpy().tobytes()) for part, n in zip(parts, lengths, strict=True))

    # --- errors -------------------------------------------------------------------------------------------------------

    def tell(self, error: Exception) -> None:
        """Leaves word for the others, who see nothing but that this rank is gone."""
        known = isinstance(error, MuvlaError)
        word = [type(error).__name__, *((error.field, error.got, error.expected, error.remedy) if known else [])]
        if not known:
            word = [
                "MuvlaError",
                f"rank {self.rank}",
                f"{type(error).__name__}: {error}",
                "no error",
                "see its traceback",
            ]
        with contextlib.suppress(RuntimeError):  # the store may be gone with the process that kept it
            self._store.set(f"error {self.rank}", json.dumps(word, default=str))

    def says(self, error: Exception) -> bool:
        """Whether this rank is the first to report this error."""
        try:
            return self._store.add(f"said {error}", 1) == 1
        except RuntimeError:
            return True

    def _told(self, rank: int) -> MuvlaError:
        name, field, got, expected, remedy = json.loads(self._store.get(f"error {rank}"))
        return getattr(errors, name)(field, got=got, expected=expected, remedy=remedy)

    def _collect(self, operation: Callable[..., T], *arguments, **named) -> T:
        """Raises, when another rank is gone, what it left word of, or RankLost."""
        try:
            return operation(*arguments, **named)
        except RuntimeError as error:
            if not _is_of_a_connection(error):
                raise
            raise self._lost() from error

    def _lost(self) -> MuvlaError:
        with contextlib.suppress(RuntimeError):
            for rank in range(self.size):
                if self._store.check([f"error {rank}"]):
                    return self._told(rank)
        return RankLost(
            "ranks",
            got="one that is gone or does not answer",
            expected=f"all {self.size}",
            remedy="run the same command again: it continues from the last checkpoint",
        )


def is_launched() -> bool:
    """Whether this is one of several processes, by the environment that torchrun gives them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _is_of_a_connection(error: BaseException) -> bool:
    """Also from within a sharded block, where it is not wrapped; gloo has no class for them."""
    lost = isinstance(error, (RankLost, dist.DistError))
    return lost or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@contextlib.contextmanager
def launched(sharded: bool) -> Iterator[Ranks]:
    """This process among those that torchrun has started; ALONE, and nothing of torch.distributed, if it is by itself.

    Errors that several ranks meet are marked as `said` on all but one. Raises MuvlaError for a lonely `--shard`, and
    for more ranks than GPUs.
    """
    if not is_launched():
        if sharded:
            raise MuvlaError(
                "--shard",
                got="one process",
                expected="several ranks",
                remedy="start it by `torchrun --nproc-per-node N -m muvla.cli train …`, or leave it out",
            )
        yield SINGLE_PROCESS
        return
    cuda, local = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise MuvlaError(
            "torchrun --nproc-per-node",
            got=f"rank {local} of this machine",
            expected=f"{torch.cuda.device_count()} ranks at most: as many as it has GPUs",
            remedy="start fewer",
        )
    if cuda:
        torch.cuda.set_device(local)
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    ranks = TorchRanks(rank, size, sharded, dist.PrefixStore("muvla", store))
    try:
        yield ranks
    except BaseException as error:  # and no farewell: with a rank gone it may never end
        if isinstance(error, Exception) and not _is_of_a_connection(error):
            ranks.tell(error)
        error.said = not ranks.says(error)
        raise
    dist.destroy_process_group()


def checksum(tensor: Tensor) -> int:
    """The sum of its bits, taken as integers."""
    return int(tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]).sum())


def buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """In their order, as few as hold BUCKET numbers each or a single tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
