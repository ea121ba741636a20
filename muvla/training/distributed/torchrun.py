"""The ranks of a training that torchrun started: what they exchange, and how they end when a rank is lost.

Nothing hooks into the backward pass. When all truncation blocks are done, one synchroniser sums the gradient of every
trained tensor, however often the tensor was used. Under `--shard`, FSDP sums the gradients of the blocks
(`muvla.training.distributed.fsdp`).

An error of one rank is raised by all ranks. A rank that dies closes its connections, and the others raise RankLost. A
rank that hangs counts as lost after TIMEOUT.
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
from muvla.training.distributed import fsdp
from muvla.training.distributed.base import SINGLE_PROCESS, Named, Ranks
from muvla.training.distributed.memory_state import join_slots

TIMEOUT = timedelta(minutes=10)  # without an answer, after which a rank counts as lost
LONG_TIMEOUT = timedelta(days=2)  # for long work; a rank that dies is noticed at once
BUCKET = 2**25  # numbers that are summed at once: 128 MB beside the gradients

T = TypeVar("T")


class TorchRanks(Ranks):
    """One rank of several, inside `join_ranks`."""

    def __init__(self, rank: int, size: int, sharded: bool, store: dist.Store):
        self.rank, self.size, self.sharded, self._store, self._main_calls = rank, size, sharded, store, 0
        self._long_group = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)

    @contextlib.contextmanager
    def raise_together(self, long_running: bool = False) -> Iterator[None]:
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
            if not _is_connection_error(error):
                self.publish_error(error)
        failed = torch.tensor(self.rank if error else self.size)
        self._collect(dist.all_reduce, failed, dist.ReduceOp.MIN, group=self._long_group if long_running else None)
        if failed == self.rank:
            raise error
        if failed < self.size:
            raise self._published_error(int(failed)) from error

    def on_main(self, work: Callable[[], T], long_running: bool = False) -> T:
        self._main_calls += 1
        with self.raise_together(long_running):
            if self.is_main:
                self._store.set(f"result {self._main_calls}", json.dumps(work()))
        return json.loads(self._store.get(f"result {self._main_calls}"))

    def assert_equal(self, name: str, value: str) -> None:
        expected = self.on_main(lambda: value)
        with self.raise_together():
            if value != expected:
                raise MuvlaError(
                    f"{name} on rank {self.rank}",
                    got=value,
                    expected=f"{expected}, as on rank 0",
                    remedy=f"give every machine the same {name}",
                )

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(int(flag))
        self._collect(dist.all_reduce, flags, dist.ReduceOp.MAX)
        return bool(flags)

    def mean(self, value: Tensor) -> Tensor:
        total = value.detach().clone()
        self._collect(dist.all_reduce, total)
        return total / self.size

    def place(self, policy: Policy, device: str) -> Policy:
        if not self.sharded:
            policy.to(device)  # a sharded policy moves block by block: the whole may not fit on the device
        for parameter in policy.parameters():
            if parameter.requires_grad:  # `check_parameters` compares the frozen ones
                self._collect(dist.broadcast, parameter.data, 0)
        self.check_parameters(policy.named_parameters(), "the start")
        if self.sharded:
            fsdp.shard(policy, init_device_mesh(device, (self.size,)))
        return policy.to(device)

    def group_parameters(self, named: Named) -> list[Named]:
        return fsdp.group_parameters(named) if self.sharded else [named]

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss: float) -> float:
        """Sums gradients and loss over the ranks.

        A tensor without gradient on every rank keeps none. A tensor with gradient on some ranks counts as zero on the
        others.
        """
        replicated = [p for p in parameters if not fsdp.is_sharded(p)]
        totals = torch.tensor([loss, *(p.grad is not None for p in replicated)], dtype=torch.float64)
        self._collect(dist.all_reduce, totals)
        loss, *counts = totals.tolist()
        reached = [p for p, count in zip(replicated, counts, strict=True) if count]
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
            return self._collect(fsdp.clip, parameters, limit)
        return super().clip(parameters, limit)

    def check_parameters(self, named: Iterable[tuple[str, Tensor]], when: str) -> None:
        """Compares replicated parameters; a sharded parameter has no second copy to compare with."""
        sums = {name: checksum(tensor.detach()) for name, tensor in named if not fsdp.is_sharded(tensor)}
        mine = torch.tensor(list(sums.values()))
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        self._collect(dist.all_gather, gathered, mine)
        differing = torch.stack(gathered) != gathered[0]  # (ranks, tensors)
        with self.raise_together():
            if differing.any():
                names = [list(sums)[i] for i in differing.any(dim=0).nonzero().flatten()]
                ranks = differing.any(dim=1).nonzero().flatten().tolist()
                raise NotAMeasurement(
                    f"parameters at {when}",
                    got=f"values on rank {', '.join(map(str, ranks))} that differ from rank 0 in "
                    f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}",
                    expected="the same bits on every rank",
                    remedy="check the machines for faults, or report a bug; the ranks have trained different policies",
                )

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._collect(fsdp.gather, tensors, self.is_main) if self.sharded else tensors

    def shard_like(self, tensors: dict[str, Tensor], parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return fsdp.shard_like(tensors, parameters) if self.sharded else tensors

    def gather_slots(self, exported: dict[str, Tensor]) -> dict[str, Tensor]:
        content = torch.frombuffer(
            bytearray(save({k: v.cpu().contiguous() for k, v in exported.items()})), dtype=torch.uint8
        )
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        self._collect(dist.all_gather, lengths, torch.tensor(len(content)))
        padded = nn.functional.pad(content, (0, int(max(lengths)) - len(content)))
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self._collect(dist.all_gather, parts, padded)
        return join_slots(load(part[:n].numpy().tobytes()) for part, n in zip(parts, lengths, strict=True))

    def publish_error(self, error: Exception) -> None:
        """Publishes the error to the other ranks, which would notice only that this rank is gone."""
        if isinstance(error, MuvlaError):
            message = [type(error).__name__, error.field, error.got, error.expected, error.remedy]
        else:
            got = f"{type(error).__name__}: {error}"
            message = ["MuvlaError", f"rank {self.rank}", got, "no error", f"read the traceback of rank {self.rank}"]
        with contextlib.suppress(RuntimeError):  # the store may be gone with the process that kept it
            self._store.set(f"error {self.rank}", json.dumps(message, default=str))

    def reports_first(self, error: Exception) -> bool:
        """Returns True if no other rank has reported this error yet, and marks the error as reported."""
        try:
            return self._store.add(f"reported {error}", 1) == 1
        except RuntimeError:
            return True

    def _published_error(self, rank: int) -> MuvlaError:
        name, field, got, expected, remedy = json.loads(self._store.get(f"error {rank}"))
        return getattr(errors, name)(field, got=got, expected=expected, remedy=remedy)

    def _collect(self, operation: Callable[..., T], *arguments, **named) -> T:
        """Runs a collective operation. If another rank is gone, raises the error that it published, or RankLost."""
        try:
            return operation(*arguments, **named)
        except RuntimeError as error:
            if not _is_connection_error(error):
                raise
            raise self._lost() from error

    def _lost(self) -> MuvlaError:
        with contextlib.suppress(RuntimeError):
            for rank in range(self.size):
                if self._store.check([f"error {rank}"]):
                    return self._published_error(rank)
        return RankLost(
            "ranks",
            got="a rank that is gone or does not answer",
            expected=f"answers of all {self.size} ranks",
            remedy="run the same command again: it continues from the last checkpoint",
        )


def is_launched() -> bool:
    """Returns True if torchrun started this process among several, by its environment variables."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _is_connection_error(error: BaseException) -> bool:
    """Returns True for a lost connection. Errors inside a sharded block are not wrapped, and gloo has no class for
    them."""
    lost = isinstance(error, (RankLost, dist.DistError))
    return lost or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@contextlib.contextmanager
def join_ranks(sharded: bool) -> Iterator[Ranks]:
    """Joins this process to the others that torchrun started; a process by itself gets SINGLE_PROCESS.

    Sets `reported_elsewhere` on an error that another rank reports.

    Raises:
        MuvlaError: `--shard` in a single process, or more ranks than GPUs.
    """
    if not is_launched():
        if sharded:
            raise MuvlaError(
                "--shard",
                got="one process",
                expected="several ranks",
                remedy="start the training by `torchrun --nproc-per-node N -m muvla.cli train …`, or omit --shard",
            )
        yield SINGLE_PROCESS
        return
    cuda, local = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise MuvlaError(
            "torchrun --nproc-per-node",
            got=f"rank {local} of this machine",
            expected=f"at most {torch.cuda.device_count()} ranks, one per GPU",
            remedy=f"set --nproc-per-node to {torch.cuda.device_count()} or less",
        )
    if cuda:
        torch.cuda.set_device(local)
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    ranks = TorchRanks(rank, size, sharded, dist.PrefixStore("muvla", store))
    try:
        yield ranks
    except BaseException as error:  # the process group stays open: closing it may hang when a rank is gone
        if isinstance(error, Exception) and not _is_connection_error(error):
            ranks.publish_error(error)
        error.reported_elsewhere = not ranks.reports_first(error)
        raise
    dist.destroy_process_group()


def checksum(tensor: Tensor) -> int:
    """Returns the sum of the tensor's bits, read as integers."""
    return int(tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]).sum())


def buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Splits tensors, in order, into buckets of at most BUCKET numbers; a larger tensor has its own bucket."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
