"""Peak memory of a call: of a process of its own on a CPU, of what is allocated on a GPU."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def in_a_process(function: Callable[..., float], *arguments: Any) -> float:
    """The result of `function` in a fresh process, whose memory nothing else has used."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def added_peak(run: Callable[[], object], device: str) -> float:
    """MB by which a call raises the memory in use at most."""
    if device != "cpu":
        run()  # what is compiled and loaded first stays
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Linux keeps the peak of a whole life, and a child begins with its parent's: it is set back first.
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """kB, from what Linux tells of this process."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])
