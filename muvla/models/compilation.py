"""`--compile`: the language model's layers as one kernel sequence each, by torch.compile.

The layers are what every tick computes; the rest runs once per window. Shapes are static, so that a layer is compiled
once for all layers, ticks and windows of one batch shape, with gradient and without. It changes numbers by rounding:
provenance, no part of a cell's identity.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch

from muvla.errors import MuvlaError
from muvla.models.policy import Policy

# What a layer reads off the plan, by attention backend. Made before the layers run: the guard is computed by the same
# code as without compilation, and a plan whose parts appear after the first layer would be compiled for twice.
READ_OFF_THE_PLAN = {"dense": "mask", "split": "row_groups"}


def compile_step(policy: Policy, backend: str | Callable = "inductor") -> None:
    """Compile the layers of `policy`, in place, when they first run; parameters keep their names. `backend` is
    torch.compile's: another one counts what is compiled.

    Raises MuvlaError for an attention backend that cannot be compiled. Later, torch raises where it would have to leave
    compiled code: nothing falls back silently.
    """
    attention = policy.config.attention
    if attention not in READ_OFF_THE_PLAN:
        raise MuvlaError(
            "--compile",
            got=f"model.attention={attention}",
            expected=f"one of {', '.join(READ_OFF_THE_PLAN)}",
            remedy="leave --compile out, or set model.attention",
        )
    torch.compiler.reset()  # torch compiles a function for eight shapes at most, counted over all policies of a process
    policy.language.register_forward_pre_hook(_make_plan, with_kwargs=True)
    for layer in policy.language.layers:
        layer.compile(backend=backend, dynamic=False, fullgraph=True)


def require_compiler(device: str) -> None:
    """Raises MuvlaError where torch finds no compiler: of C++ for a CPU, of C for what launches code on a GPU."""
    what, variable, names = ("C++", "CXX", ("g++",)) if device == "cpu" else ("C", "CC", ("gcc", "clang"))
    if not any(shutil.which(os.environ.get(variable, name)) for name in names):
        raise MuvlaError(
            "--compile",
            got=f"no {what} compiler",
            expected=f"{' or '.join(names)}, or the one that {variable} names",
            remedy=f"install {names[0]}, or leave --compile out",
        )


def is_compiled(policy: Policy) -> bool:
    return any(layer._compiled_call_impl is not None for layer in policy.language.layers)


def _make_plan(module, args, kwargs) -> None:
    getattr(kwargs["plan"], READ_OFF_THE_PLAN[kwargs["plan"].backend])
