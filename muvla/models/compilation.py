"""`--compile`: the layers of the language model and of an action expert as one kernel sequence each, by torch.compile.

Every tick computes these layers; the other parts run once per window. Shapes are static, so torch compiles a layer once
for all layers, ticks and windows of one batch shape, with gradient and without. Compilation changes results by
rounding, so it belongs to provenance and not to a cell's identity.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch

from muvla.errors import MuvlaError
from muvla.models.action_expert import ActionExpert
from muvla.models.policy import Policy

# The part of the plan that a layer reads, by attention backend. It is made before the layers run: then uncompiled code
# computes the guard, and torch does not compile a second time for a plan whose parts appear after the first layer.
READ_OFF_THE_PLAN = {"dense": "mask", "split": "row_groups"}


def compile_step(policy: Policy, backend: str | Callable = "inductor") -> None:
    """Makes the policy's layers compile, in place, when they first run; parameters keep their names.

    Later, torch raises an error instead of leaving compiled code, so nothing falls back silently.

    Args:
        policy: the policy to compile.
        backend: torch.compile's backend; a test passes a function that counts compilations.

    Raises:
        MuvlaError: the attention backend cannot be compiled.
    """
    attention = policy.config.attention
    if attention not in READ_OFF_THE_PLAN:
        raise MuvlaError(
            "--compile",
            got=f"model.attention={attention}",
            expected=f"one of {', '.join(READ_OFF_THE_PLAN)}",
            remedy="omit --compile, or set model.attention",
        )
    torch.compiler.reset()  # torch compiles a function for at most eight shapes per process, over all policies
    policy.language.register_forward_pre_hook(_make_plan, with_kwargs=True)
    for layer in policy.language.layers:
        layer.compile(backend=backend, dynamic=False, fullgraph=True)
    if isinstance(policy.head, ActionExpert):
        for block in policy.head.blocks:
            block.compile(backend=backend, dynamic=False, fullgraph=True)


def require_compiler(device: str) -> None:
    """Raises MuvlaError if torch lacks its compiler: C++ for a CPU, C for code that launches kernels on a GPU."""
    language, variable, names = ("C++", "CXX", ("g++",)) if device == "cpu" else ("C", "CC", ("gcc", "clang"))
    if not any(shutil.which(os.environ.get(variable, name)) for name in names):
        raise MuvlaError(
            "--compile",
            got=f"no {language} compiler",
            expected=f"{' or '.join(names)}, or the compiler that {variable} names",
            remedy=f"install {names[0]}, or omit --compile",
        )


def is_compiled(policy: Policy) -> bool:
    return any(layer._compiled_call_impl is not None for layer in policy.language.layers)


def _make_plan(module, args, kwargs) -> None:
    plan = kwargs["plan"]
    getattr(plan, "mask" if plan.layout.causal else READ_OFF_THE_PLAN[plan.backend])
