"""A finished training of this project as the start of another training (`start.checkpoint`).

Stages follow each other so: a memory is trained on from the weights of a policy that has learned to see. The two cells
may differ in memory, cameras and data. Towers, projector and language model must have one size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from muvla.checkpoints import native
from muvla.config.model import SizeConfig
from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.models.constants import DEFAULT
from muvla.models.policy import Policy
from muvla.models.prompts import Prompts, built_in_prompts

RUN = "run.json"
WEIGHTS = ("vision.", "language.")  # parameters of towers, projector and language model; the others are `all`
MEMORY = "memory."

Part = Literal["weights", "rest"]


def is_training(path: Path) -> bool:
    """True for the folder of a training's run, or of one of its checkpoints."""
    return (path / RUN).exists() or (path / native.META).exists()


class NativeStart:
    """The parameters of a finished training.

    Attributes:
        path: folder of the run or of the checkpoint.
        size: sizes of the model.
        film: the towers were trained with FiLM.
        constants: numbers of the computation, those of every policy that is built here.
    """

    def __init__(self, path: Path):
        """Opens the selected checkpoint of a run's folder, or the checkpoint itself.

        Raises:
            MuvlaError: the training is not finished, or its parameters are not all in its checkpoint.
        """
        self.path, self.constants = path, DEFAULT
        chosen = path if (path / native.META).exists() else native.selected(path / "checkpoints")
        if chosen is None:
            raise _unusable(path, "a run without a checkpoint", "train that cell to its end first")
        self.folder, self.saved = chosen, native.load(chosen, parts=())
        cell = self.saved.cell
        newest = None if chosen is path else native.latest(path / "checkpoints")
        if newest is not None and newest.name != native.folder_name(cell.budget.updates):
            raise _unusable(path, f"{newest.name} of {cell.budget.updates} updates", "train that cell to its end first")
        if cell.start_place is not None and not is_training(Path(cell.start_place)):
            raise _unusable(
                path,
                f"a run that started from {cell.start_place}, whose tokenizer and constants are not stored here",
                "start from that checkpoint, or from a run without a released start",
            )
        if cell.lora.rank:
            raise _unusable(path, f"adapters of rank {cell.lora.rank}", "start from a run with lora.rank=0")
        self.size: SizeConfig = cell.model.size
        self.film: bool = cell.model.film

    def prompts(self) -> Prompts:
        return built_in_prompts()

    def content(self) -> str:
        """Returns the hash of the parameters, independent of the folder's place."""
        return content_hash({"training": native.hash_model(self.folder)})

    def parts_for(self, policy: Policy, parts: Literal["all", "weights"]) -> list[Part]:
        """Returns the parts to read into `policy`."""
        return ["weights"] if parts == "weights" else ["weights", "rest"]

    def values(
        self, policy: Policy, parts: list[Part], dtype: Callable[[str, torch.Size], torch.dtype]
    ) -> dict[str, Tensor]:
        """Returns copies of `policy`'s parameters that these parts hold.

        The memory is read only where both trainings have one mechanism.

        Args:
            policy: gives names and shapes.
            parts: the parts to read.
            dtype: returns the dtype of a parameter from its name and shape.

        Raises:
            MuvlaError: a parameter of the towers, projector or language model is missing, or any has another shape.
        """
        stored = native.load(self.folder, ("model",)).tensors["model"]
        same_memory = policy.memory.config.kind == self.saved.cell.memory.kind
        values, wrong = {}, []
        for name, parameter in policy.named_parameters():
            is_weight = name.startswith(WEIGHTS)
            if not is_weight and ("rest" not in parts or (name.startswith(MEMORY) and not same_memory)):
                continue
            if name in stored and stored[name].shape == parameter.shape:
                values[name] = stored[name].to(dtype(name, parameter.shape), copy=True)
            elif name in stored:
                wrong.append(f"{name} is {tuple(stored[name].shape)} instead of {tuple(parameter.shape)}")
            elif is_weight:
                wrong.append(f"missing {name}")
        if wrong:
            raise _unusable(
                self.path,
                "; ".join(wrong[:8]),
                "set start.parts to weights, which draws head, proprio projector and memory anew"
                if not any(line.removeprefix("missing ").startswith(WEIGHTS) for line in wrong)
                else "start from a run of the same architecture that trained its towers",
            )
        return values


def _unusable(path: Path, got: str, remedy: str) -> MuvlaError:
    return MuvlaError(
        "start.checkpoint", got=f"{path}: {got}", expected="a finished training of the same architecture", remedy=remedy
    )
