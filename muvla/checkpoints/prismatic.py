"""Released policies with an action expert, as their trainings save them: CogACT, MemoryVLA and CronusVLA.

`muvla.checkpoints.training_file` describes the files, `muvla.checkpoints.expert_names` the tensors. The release states
no tokenizer: put the `tokenizer.json` of openvla/openvla-7b, which is Llama's, into the run folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from torch import Tensor

from muvla.checkpoints import names
from muvla.checkpoints.comparison import (
    dtype_differences,
    get_shapes,
    prompt_differences,
    proprio_dimension,
    require_statistics,
    statistics_differences,
    tensor_differences,
    value_difference,
)
from muvla.checkpoints.expert_names import NET, expected_shapes, policy_rules, unread_expert, unread_weights
from muvla.checkpoints.fields import FieldStatus
from muvla.checkpoints.metadata import require_own_keys
from muvla.checkpoints.names import Shapes
from muvla.checkpoints.parts import STATISTICS, TOKENIZER
from muvla.checkpoints.prismatic_config import config_file, judge_fields, read_expert, read_memory, read_size
from muvla.checkpoints.tensors import Shards, require_inside, sha256
from muvla.checkpoints.training_file import find_run_folder, find_training_file, open_tensors, read_config
from muvla.config import MemoryConfig, ModelConfig, ReleasedPrecision
from muvla.config.model import SizeConfig
from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.constants import DEFAULT, Constants
from muvla.models.policy import Interface, Policy, dimensions_of
from muvla.models.prompts import Prompts, built_in_prompts, load_released_prompts
from muvla.utils.foreign import read_object

Family = Literal["cogact", "memoryvla", "cronusvla", "prismatic"]
HEAD_MODULES, MEMORY_MODULES = ("action_model",), ("per_compr", "cog_mem_bank", "per_mem_bank")
LISTED = 8  # differences in an error's text
TEXT = 64  # tokens that prompts are padded to


class PrismaticCheckpoint:
    """A run folder whose headers were read.

    Attributes:
        path: the run folder.
        file: the training file; None for converted weights.
        config: config.json or config.yaml.
        size: sizes of towers and language model.
        tensors: by `module.name`.
        family: whose policy the file holds; `prismatic` has no action expert.
    """

    film = without_memory = False

    def __init__(self, path: Path, size: SizeConfig | None = None, without_memory: bool = False):
        """Opens the folder, or a training file in it.

        Args:
            path: run folder, or RUN/checkpoints/step-….pt.
            size: needed only if the configuration names neither a released backbone nor a size of this project.
            without_memory: refused, because a memory of MemoryVLA is trained with its expert.

        Raises:
            MuvlaError: a file is missing, unreadable or contradicts another file.
        """
        folder = find_run_folder(path)
        if folder is None:
            raise MuvlaError(
                str(path),
                got="a path without a configuration of Prismatic",
                expected="the run folder of CogACT, MemoryVLA or CronusVLA, with config.json or config.yaml",
                remedy="fetch config.json of the same run",
            )
        if without_memory:
            raise MuvlaError(
                "--without-memory",
                got=str(path),
                expected="a μVLA checkpoint",
                remedy="omit --without-memory; the intervention skip_read leaves a memory of MemoryVLA unread",
            )
        self.path, self.file, self.config = folder, find_training_file(folder, path), read_config(folder)
        if self.file is not None:
            require_inside(self.file, folder)
        require_own_keys(config_file(folder), self.config)
        self.size = size or read_size(folder, self.config)
        self.tensors = open_tensors(folder, self.file)

    @cached_property
    def shapes(self) -> Shapes:
        return get_shapes(self.tensors)

    @property
    def family(self) -> Family:
        modules = {name.split(".", 1)[0] for name in self.shapes}
        if not modules & set(HEAD_MODULES):
            return "prismatic"
        if modules & set(MEMORY_MODULES):
            return "memoryvla"
        return "cronusvla" if f"{NET}z_embedder.linear_0.weight" in self.shapes else "cogact"

    @cached_property
    def memory(self) -> MemoryConfig:
        modules = {name.split(".", 1)[0] for name in self.shapes}
        return read_memory(self.path, self.config, self.family, modules & set(MEMORY_MODULES))

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Quantiles by dataset key. A dataset without proprioception gets a scale that nothing reads."""
        file = self.path / STATISTICS
        unread = {"proprio": {"q01": [0.0], "q99": [1.0]}}
        entries = read_object(file) if file.exists() else {}
        require_statistics(entries, str(file))
        return {key: unread | entry for key, entry in entries.items()}

    @property
    def constants(self) -> Constants:
        return DEFAULT

    @property
    def step(self) -> str:
        """Name of the training file without its ending."""
        return "converted" if self.file is None else self.file.stem

    @cached_property
    def fields(self) -> list[FieldStatus]:
        """The status of every file and field: used, irrelevant or refused."""
        used = {file.name for file in self.read_files()}
        statuses = [
            FieldStatus(file.name, "", "used")
            if file.name in used
            else FieldStatus(file.name, "", "irrelevant", "no file that the policy reads")
            for file in sorted(self.path.iterdir())
            if file.is_file() and file.name != config_file(self.path).name
        ]
        return statuses + list(judge_fields(config_file(self.path).name, self.config))

    def read_files(self) -> list[Path]:
        """Returns every file that decides what the policy computes, and no other file."""
        weights = self.tensors.files.values() if isinstance(self.tensors, Shards) else [self.file]
        files = {config_file(self.path), *weights}
        return sorted(files | {self.path / name for name in (STATISTICS, TOKENIZER) if (self.path / name).exists()})

    def hashes(self) -> dict[str, str]:
        """Returns the hash of every file in `read_files`, by name."""
        return {file.name: sha256(file) for file in self.read_files()}

    def content(self) -> str:
        """Returns the hash of `read_files`: independent of the folder's place and of other files in it."""
        return content_hash(self.hashes())

    def stored_normalisation(self) -> dict[str, Any]:
        return {}

    def prompts(self) -> Prompts:
        """Raises MuvlaError if the folder lacks Llama's tokenizer, which the published code takes from elsewhere."""
        if self.config.get("muvla_built_in_tokenizer") is True:
            return built_in_prompts()
        file = self.path / TOKENIZER
        if not file.exists():
            raise MuvlaError(
                str(file),
                got="no such file",
                expected="Llama's tokenizer, which these releases take from meta-llama/Llama-2-7b-hf",
                remedy=f"copy tokenizer.json of openvla/openvla-7b, which holds the same tokenizer, to {file}",
            )
        return load_released_prompts(file)

    def skeleton(self) -> Policy:
        """Returns the policy of these files without values: parameters on the meta device, buffers with values."""
        expert, chunk, action_dim = read_expert(self.path, self.config, self.family)
        interface = Interface(
            cameras=self.config.get("muvla_cameras", 1),
            proprio_dim=proprio_dimension(self.statistics),
            action_dim=action_dim,
            text=TEXT,
            text_padded=True,
        )
        model = ModelConfig(
            self.size,
            chunk,
            images=self.config.get("muvla_images", "released"),
            proprio=False,
            head="expert",
            expert=expert,
            causal=True,
        )
        with init_empty_weights(include_buffers=False):
            return Policy(model, build_memory(self.memory, dimensions_of(model, interface)), interface)

    def differences(self) -> list[str]:
        """Returns a line for everything that would not load, by names and headers alone."""
        skeleton = self.skeleton()
        expected = expected_shapes(skeleton)
        unread = unread_expert(skeleton.config.expert.width, skeleton.interface.action_dim)
        expected |= {name: shape for name, shape in unread.items() if name in self.shapes}  # CogACT's alone
        lines = tensor_differences("model", self.shapes, expected) + dtype_differences("model", self.tensors)
        lines += [status.line() for status in self.fields if status.status == "refused"]
        lines += statistics_differences(self.statistics, skeleton.interface)
        try:
            lines += prompt_differences(self.prompts(), self.size.vocabulary)
        except MuvlaError as error:
            lines.append(f"tokenizer: {error}")
        return lines

    def value_differences(self) -> list[str]:
        """Returns a line for every tensor with NaN or infinity. Reads every value."""
        return [line for name in self.tensors if (line := value_difference("model", name, self.tensors[name]))]

    def require_loadable(self) -> None:
        """Raises MuvlaError with the differences, and for Prismatic's language model without an action expert."""
        if self.family == "prismatic":
            raise MuvlaError(
                str(self.path),
                got="weights without an action expert",
                expected="a training file of CogACT, MemoryVLA or CronusVLA",
                remedy="use it as the start of a training (start.checkpoint)",
            )
        self._require_none(self.differences())

    def _require_none(self, differences: list[str]) -> None:
        if differences:
            more = f"; and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
            raise MuvlaError(
                str(self.path),
                got="; ".join(differences[:LISTED]) + more,
                expected=f"the tensors and fields of {self.family} at size {self.size.name!r}",
                remedy="list all differences with `muvla inspect`; take all files from one run",
            )

    def parts_for(self, policy: Policy, parts: Literal["all", "weights"]) -> list[str]:
        """Returns the parts that the file holds and `policy` uses: towers and language model, expert, memory."""
        if parts == "weights" or policy.config.head != "expert":
            return ["weights"]
        held = {"weights": True, "head": self.family != "prismatic", "memory": self.family == "memoryvla"}
        return [part for part in policy_rules(policy) if held[part]]

    def values(
        self, policy: Policy, parts: list[str], dtype: Callable[[str, torch.Size], torch.dtype]
    ) -> dict[str, Tensor]:
        """Returns copies of `policy`'s parameters that these parts hold.

        Parameters of the expert and the memory that the file lacks are left out: MemoryVLA starts from CogACT, whose
        expert has no perception attention.

        Args:
            policy: gives names and shapes.
            parts: the parts to read.
            dtype: our name and shape → dtype of the parameter.

        Raises:
            MuvlaError: a tensor of the weights is missing; a shape differs; or numbers are not finite.
        """
        ours, values, lines = dict(policy.named_parameters()), {}, []
        rules = policy_rules(policy)
        for part in parts:
            for rule in rules[part]:
                if part != "weights" and not any(name in self.shapes for name in rule.published):
                    continue
                expected = rule.published_shapes(ours)
                stored = {name: self.shapes[name] for name in rule.published if name in self.shapes}
                if differing := tensor_differences(part, stored, expected):
                    lines += differing
                    continue
                published = [self.tensors[name] for name in rule.published]
                checked = zip(rule.published, published, strict=True)
                lines += [line for name, tensor in checked if (line := value_difference(part, name, tensor))]
                loaded = rule.load(*published)
                values |= {n: v.to(dtype(n, v.shape), copy=True) for n, v in zip(rule.ours, loaded, strict=True)}
        self._require_none(lines)
        return values

    def load_policy(self, precision: ReleasedPrecision = "float32", device: str = "cpu") -> Policy:
        """Returns the policy on `device`; loading is strict.

        Raises:
            MuvlaError: something would not load (`differences`), or the precision is nf4.
        """
        if precision == "nf4":
            raise MuvlaError(
                "--precision",
                got="nf4",
                expected=f"float32 or bfloat16 for {self.family}",
                remedy="choose bfloat16",
            )
        self.require_loadable()
        policy = self.skeleton()
        policy.prompts = self.prompts()
        policy.config = replace(policy.config, precision=precision)

        def dtype(name: str, shape: torch.Size) -> torch.dtype:
            matrix = len(shape) > 1 and not name.startswith(("memory.", "head."))
            return torch.bfloat16 if matrix and precision == "bfloat16" else torch.float32

        values = self.values(policy, list(policy_rules(policy)), dtype)
        for name in names.never_published(dict(policy.named_parameters())):
            values[name] = torch.zeros(policy.get_parameter(name).shape)
        policy.load_state_dict(values, assign=True)
        return policy.to(device)

    def carried(self) -> dict[str, Tensor]:
        """Returns the tensors that no policy reads."""
        unread = unread_weights(self.size).keys()
        return {name: self.tensors[name] for name in self.shapes if name in unread or ".history_embedder." in name}
