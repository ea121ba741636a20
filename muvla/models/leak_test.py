"""The leak test: no memory holds what ACTION, STOP and TIME say.

Legend: B slots, H chunk, A action dim, D width.
"""

from __future__ import annotations

from functools import partial

import torch

from muvla.errors import NotAMeasurement
from muvla.memory.contract import Clock, State
from muvla.models.policy import Encoded, Policy


@torch.no_grad()
def leak_test(policy: Policy, encoded: Encoded, state: State) -> float:
    """Tests that no memory can hold what ACTION, STOP and TIME say; at start-up and in every evaluation.

    Two passes differ in the embeddings of these tokens alone. Compared are the states at the MEMORY rows, what the
    mechanism retrieves, and what it writes. A mechanism that retrieves is tested a second time from the state that it
    wrote, because an empty store may answer every query alike.

    Args:
        policy: the policy with its memory.
        encoded: observations of B slots.
        state: leaves (B, …) of the memory.

    Returns:
        The largest change; exactly 0.0 under the guard `context`.

    Raises:
        NotAMeasurement: if anything changes under the guard `context`.
    """
    if not (policy.memory.has_state or policy.memory.reads_observation):
        return 0.0
    leak, written, retrieves = _leak(policy, encoded, state)
    if retrieves:
        leak = max(leak, _leak(policy, encoded, written)[0])
    if policy.config.guard == "context" and leak != 0.0:
        raise NotAMeasurement(
            "model.guard",
            got=f"a memory that moved by {leak:.3g} when the guarded embeddings were perturbed",
            expected="exactly 0 under the guard `context`",
            remedy="set another model.attention and report this as a bug; results of this backend are no measurements",
        )
    return leak


def _leak(policy: Policy, encoded: Encoded, state: State) -> tuple[float, State, bool]:
    """The largest change, the state that the unperturbed pass wrote, and whether the mechanism retrieved anything."""
    memory, slots = policy.memory, len(encoded.prefix)
    zeros = torch.zeros(slots, dtype=torch.int64, device=encoded.prefix.device)
    clock = Clock(zeros, zeros, is_first=zeros == 0, valid=zeros == 0)
    read = memory.read(state, policy.observe(encoded), clock)
    guarded = policy.layout().action + 2
    width, tokens = encoded.prefix.shape[-1], read.tokens
    ramp = torch.linspace(-1, 1, guarded * width, device=tokens.device, dtype=tokens.dtype)
    ramp = ramp.view(1, guarded, -1).expand(slots, -1, -1)
    moved: list[State] = []
    for perturbation in (torch.zeros_like(ramp), ramp):
        retrieve = partial(memory.retrieve, state, clock=clock)
        output = policy.perturbed(encoded, tokens, perturbation, retrieve)
        written = memory.write(state, output.taps, clock, read, output.retrieved)
        seen = {f"written {name}": leaf for name, leaf in written.items()} | {"taps": output.memory}
        moved.append(seen if output.retrieved is None else seen | {"content": output.retrieved.content})
        if len(moved) == 1:
            first = written
    changes = [(moved[0][name].double() - moved[1][name].double()).abs() for name in moved[0]]
    return max(c.max().item() for c in changes if c.numel()), first, output.retrieved is not None
