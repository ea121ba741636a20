"""Tensors that published code computed, from the folder `golden` of MUVLA_TEST_DATA; its README states the bounds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

FLOAT64, FLOAT32 = 1e-9, 5e-6


@dataclass(frozen=True)
class Golden:
    """One set: inputs, weights, outputs and configuration."""

    name: str
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """Published parameter name without `prefix` → tensor."""
        start = f"w.{prefix}"
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}

    @cached_property
    def sensitive(self) -> dict[str, float]:
        return self.about["f32_vs_f64_above_2e-6"]

    def compare(self, name: str, got: Tensor) -> None:
        """Hold a tensor against `out.<name>`, or `out64.<name>` for float64. Other dtypes are exact."""
        if got.dtype == torch.float64:
            if f"out64.{name}" in self.tensors:
                torch.testing.assert_close(got, self.tensors[f"out64.{name}"], rtol=0, atol=FLOAT64, msg=name)
            return
        expected = self.tensors[f"out.{name}"]
        if not got.is_floating_point():
            assert torch.equal(got.to(expected.dtype), expected), name
            return
        bound = max(FLOAT32, 4 * self.sensitive.get(name, 0.0))
        difference = (got - expected).abs().max().item()
        assert got.shape == expected.shape and difference <= bound, (name, difference, bound)


def load_golden(name: str) -> Golden:
    """A set such as `memoryvla/b1_bank_eval_L4`; skips the test where no test data are set."""
    place = os.environ.get("MUVLA_TEST_DATA")
    if place is None:
        pytest.skip("MUVLA_TEST_DATA is not set")
    path = Path(place) / "golden" / name
    return Golden(name, load_file(f"{path}.safetensors"), json.loads(Path(f"{path}.json").read_text()))
