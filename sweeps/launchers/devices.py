"""Which GPUs of one machine a cell takes: round robin over all, the least busy first."""

from __future__ import annotations

import os

from muvla.errors import MuvlaError
from muvla.utils.devices import count_gpus


class Places:
    """The places of one machine at which a cell can run. Each place has one or several devices.

    `cuda` means all GPUs, and a place has `per_cell` of them. `cpu` and `cuda:N` are a single place.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        per_cell: devices, and processes, of a cell.

    Raises:
        MuvlaError: a cell needs more GPUs than the machine has.
    """

    def __init__(self, device: str, per_cell: int = 1):
        require_gpus(device, per_cell)
        gpus = count_gpus() if device == "cuda" else 0
        groups = [tuple(range(first, first + per_cell)) for first in range(0, gpus - per_cell + 1, per_cell)]
        self._device, self._per_cell = device, per_cell
        self._busy = {group: 0 for group in groups or [()]}  # cells that run at each place

    @property
    def count(self) -> int:
        return len(self._busy)

    def take(self) -> tuple[int, ...]:
        """The least busy place, the first of several; empty where the device is no choice."""
        place = min(self._busy, key=self._busy.__getitem__)
        self._busy[place] += 1
        return place

    def give_back(self, place: tuple[int, ...]) -> None:
        self._busy[place] -= 1

    def device_at(self, place: tuple[int, ...]) -> str:
        """The device of a cell at this place; several devices are made visible by `visible_at`."""
        return f"cuda:{place[0]}" if len(place) == 1 else self._device

    def visible_at(self, place: tuple[int, ...]) -> str | None:
        """CUDA_VISIBLE_DEVICES of a cell that takes several GPUs; None leaves the variable as it is."""
        if len(place) < 2:
            return None
        names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        return ",".join(names[i] if len(names) > i and names[i] else str(i) for i in place)


def require_gpus(device: str, per_cell: int) -> None:
    """Raises MuvlaError if a cell on `device` needs more GPUs than this machine has."""
    field = "--gpus-per-cell"
    if per_cell < 1:
        raise MuvlaError(field, got=per_cell, expected="at least 1", remedy="leave the option out for one")
    if device == "cpu":
        return
    gpus = count_gpus() if device == "cuda" else 1
    if per_cell > gpus:
        raise MuvlaError(
            field,
            got=per_cell,
            expected=f"at most {gpus}, the GPUs of --device {device} on this machine",
            remedy="ask for fewer GPUs, or use a launcher that starts cells on other machines",
        )
