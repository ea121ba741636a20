"""Peak memory of a call: resident memory of the process on a CPU, allocated memory on a GPU."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def in_a_process(function: Callable[..., float], *arguments: Any) -> float:
    """Return the result of `function` in a fresh process, whose memory no other call has used."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def added_peak(run: Callable[[], object], device: str) -> float:
    """Return the MB by which a call raises the peak of the memory in use.

    On a CPU a call may use memory that its process has freed before: measure in a fresh process (`in_a_process`).
    """
    if device != "cpu":
        run()  # the first call compiles and loads code that stays in memory
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Linux keeps the peak of the process's whole life, and a child inherits the parent's peak. Writing 5 resets it.
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """Return a field of /proc/self/status in kB."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])
