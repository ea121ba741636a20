"""The processes that train one cell together, each with its part of the slots.

Every draw is keyed by the number of a slot among all B, and the loss is divided by the window of all ranks. So the sum
of the ranks' gradients is the gradient of one process with B slots. This module holds the single process; several
processes are in `muvla.training.distributed.torchrun`.

Legend: B slots of all ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import Tensor, nn

from muvla.errors import MuvlaError
from muvla.models.policy import Policy

CHECK_EVERY = 25  # updates between two comparisons of all ranks' parameters

Named = list[tuple[str, nn.Parameter]]
T = TypeVar("T")


class Ranks:
    """A single process: rank 0 of 1, with all slots; it exchanges nothing."""

    rank, size, sharded = 0, 1, False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def description(self) -> str | None:
        """Text for provenance, because several ranks round their sums differently; None for a single process."""
        return None if self.size == 1 else f"{self.size} {'sharded' if self.sharded else 'replicated'}"

    def slots(self, total: int) -> range:
        """Returns the numbers of this rank's slots. Raises MuvlaError if the ranks cannot divide the slots evenly."""
        if total % self.size:
            raise MuvlaError(
                "budget.slots",
                got=f"{total} slots for {self.size} ranks",
                expected="the same number of slots for every rank",
                remedy=f"start a number of ranks that divides {total}, or set budget.slots",
            )
        count = total // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def raise_together(self, long_running: bool = False) -> contextlib.AbstractContextManager[None]:
        """Makes every rank raise, at the block's end, an error that one rank raised in the block.

        The block itself must exchange nothing. `long_running` allows some ranks to take hours longer than others.
        """
        return contextlib.nullcontext()

    def on_main(self, work: Callable[[], T], long_running: bool = False) -> T:
        """Runs `work` on rank 0 while the other ranks wait; returns its result (plain data) on every rank."""
        return work()

    def assert_equal(self, name: str, value: str) -> None:
        """Raises MuvlaError on every rank if a rank's value differs from rank 0's."""

    def any(self, flag: bool) -> bool:
        """Returns True on every rank if any rank's flag is True."""
        return flag

    def mean(self, value: Tensor) -> Tensor:
        """Returns the mean of a number over the ranks."""
        return value

    def place(self, policy: Policy, device: str) -> Policy:
        """Moves the policy to the device; every rank starts from rank 0's parameters."""
        return policy.to(device)

    def group_parameters(self, named: Named) -> list[Named]:
        """Splits parameters into groups that one optimizer kernel can update."""
        return [named]

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss: float) -> float:
        """Sums every gradient over the ranks, in place; returns the sum of the losses."""
        return loss

    def clip(self, parameters: list[nn.Parameter], limit: float) -> float:
        """Scales the whole gradient down to norm `limit` if it is larger; returns the norm before clipping."""
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def check_parameters(self, named: Iterable[tuple[str, Tensor]], when: str) -> None:
        """Raises NotAMeasurement if the ranks hold different bits. `when` names the moment in the error."""

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns whole tensors on rank 0 from the shards of all ranks."""
        return tensors

    def shard_like(self, tensors: dict[str, Tensor], parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Shards whole tensors as the parameters are; the inverse of `gather`.

        A tensor is matched to the parameter of its name; an optimizer's tensor `name/…` to the parameter `name`.
        """
        return tensors

    def gather_slots(self, exported: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns on rank 0 the memory export of all slots from each rank's `Recurrence.export`."""
        return exported


SINGLE_PROCESS = Ranks()
