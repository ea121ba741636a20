"""The processes that train one cell together, each with its part of the slots.

Every draw is keyed by the number of a slot among all B, and the loss is divided by the window of all ranks, so that the
sum of their gradients is the gradient of one process with B slots. Here is one process alone; several are in
`muvla.training.distributed.torchrun`.

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
    """One process alone: it leads, has all slots, and nothing is to be exchanged."""

    rank, size, sharded = 0, 1, False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def kind(self) -> str | None:
        """For provenance: their sums are rounded otherwise than one process's."""
        return None if self.size == 1 else f"{self.size} {'sharded' if self.sharded else 'replicated'}"

    def slots(self, total: int) -> range:
        """This rank's part of the slots of all ranks. Raises MuvlaError where they cannot be divided."""
        if total % self.size:
            raise MuvlaError(
                "budget.slots",
                got=f"{total} slots for {self.size} ranks",
                expected="as many for every rank",
                remedy=f"start a number of ranks that divides {total}, or set budget.slots",
            )
        own = total // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def together(self, patiently: bool = False) -> contextlib.AbstractContextManager[None]:
        """What one rank raises in the block, all raise at its end; nothing is exchanged within. `patiently`: some may
        take hours longer than others."""
        return contextlib.nullcontext()

    def on_main(self, work: Callable[[], T], patiently: bool = False) -> T:
        """Rank 0 does it while the others wait, for hours if need be, and tells them what came of it (plain data)."""
        return work()

    def assert_equal(self, what: str, value: str) -> None:
        """Raises MuvlaError where a rank has another one than rank 0."""

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        return flag

    def mean(self, value: Tensor) -> Tensor:
        """Of one number, over the ranks."""
        return value

    def place(self, policy: Policy, device: str) -> Policy:
        """On the device, with the parameters that all ranks start from."""
        return policy.to(device)

    def groups(self, named: Named) -> list[Named]:
        """Of parameters that an optimizer can take in one go."""
        return [named]

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss: float) -> float:
        """The sums over the ranks: of every gradient, in place, and of the loss, which is returned."""
        return loss

    def clip(self, parameters: list[nn.Parameter], limit: float) -> float:
        """The norm of the whole gradient, which is scaled down to `limit` if it is larger."""
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def check(self, named: Iterable[tuple[str, Tensor]], when: str) -> None:
        """Raises NotAMeasurement if the ranks do not hold the same bits."""

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of which each rank holds a shard, whole on rank 0."""
        return tensors

    def shard_like(self, tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The way back: `tensors` by the name in `own`, and what an optimizer has by `name/…`, sharded as those are."""
        return tensors

    def gather_slots(self, exported: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `Recurrence.export` tells of each rank's slots, of all slots on rank 0."""
        return exported


SINGLE_PROCESS = Ranks()
