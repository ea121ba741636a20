"""Released checkpoint directories of OpenVLA, OpenVLA-OFT and μVLA, for reading (spec 1.2, 2.7).

    config.json                            the model's size
    model.safetensors[.index.json]         towers, projector, language model, with their LoRA merged
    vision_backbone--STEP_checkpoint.pt    with FiLM: the trained towers, which the weights then do not hold, and FiLM
    action_head--STEP_checkpoint.pt        OFT and μVLA
    noisy_action_projector--STEP_…pt       OFT with a diffusion head
    proprio_projector--STEP_checkpoint.pt  OFT and μVLA
    dataset_statistics.json                OFT and μVLA: quantiles by dataset
    tokenizer.json                         Llama's, fast
    memory_module--STEP_checkpoint.pt      μVLA: the initial memory
    memory_meta.json                       μVLA: m, update rule, α, K, mask mode

Opening a directory reads only JSON and headers, so `differences` lists what would not load without reading gigabytes.
Nothing executes remote code, and pickles are read with `weights_only`. `muvla.checkpoints.release` writes directories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from tokenizers import Tokenizer
from torch import Tensor

from muvla.checkpoints import names
from muvla.checkpoints.audit import Audited, audit, identify_normalisation, read_constants, refused
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
from muvla.checkpoints.fields import FieldStatus
from muvla.checkpoints.film_weights import VisionFile
from muvla.checkpoints.layout import expected_shapes, get_rules
from muvla.checkpoints.metadata import (
    BUILT_IN_KEY,
    CAMERAS_KEY,
    CONFIG,
    FIRST_IMAGE_KEY,
    IMAGES_KEY,
    MEMORY_META,
    PROPRIO_KEY,
    SIZE_KEY,
    MemoryMeta,
    get_size,
    read_memory_meta,
    require_fused_openvla,
    require_own_keys,
    require_stored_size,
)
from muvla.checkpoints.parts import (
    STATISTICS,
    TOKENIZER,
    Head,
    PartName,
    find_parts,
    get_head,
    get_step,
    require_one_checkpoint,
)
from muvla.checkpoints.recognition import require_recognised
from muvla.checkpoints.tensors import INDEX, Shards, read_pickle, require_inside, sha256
from muvla.config import MemoryConfig, ModelConfig, ReleasedPrecision
from muvla.config.model import SizeConfig
from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.constants import Constants
from muvla.models.policy import Interface, Policy, dimensions_of
from muvla.models.prompts import Prompts, built_in_prompts, load_released_prompts
from muvla.models.quantization import import_bitsandbytes, quantize
from muvla.utils.foreign import read_object

CHUNK = 8  # H of every release (spec 1.9); no file holds this number
UPSTREAM_FILES = ("*.json", "*.model", "*.py")  # files that only upstream's code needs, copied as they are
LISTED = 8  # differences in an error's text
LIST_ALL = "list all differences with `muvla inspect`; --size names another architecture"

Family = Literal["openvla", "oft", "muvla"]


class ReleasedCheckpoint:
    """A released directory whose headers were read.

    Attributes:
        path: the directory.
        config: config.json.
        size: the model's size.
        parts: tensors of each part that the directory holds, by name.
        files: file of each part except `weights`, which may have several.
        head: form of the action head.
        memory: memory_meta.json in the words of this project; None without a memory.
    """

    def __init__(self, path: Path, size: SizeConfig | None = None, without_memory: bool = False):
        """Opens the directory.

        Args:
            path: the directory.
            size: needed only if config.json names neither a released backbone nor a size of this project.
            without_memory: ignore the memory of a μVLA checkpoint. The OFT computation remains, without MEMORY tokens
                and with the guard `full`.

        Raises:
            MuvlaError: a file is missing, unreadable or contradicts another file.
        """
        self.path, self.without_memory = path, without_memory
        require_recognised(path)
        self.config: dict[str, Any] = read_object(path / CONFIG)
        require_fused_openvla(path / CONFIG, self.config)
        require_own_keys(path / CONFIG, self.config)
        self.size = size or get_size(path / CONFIG, self.config)
        self._shards = Shards(path)
        if size is None and SIZE_KEY in self.config:
            require_stored_size(path / CONFIG, self.size, self._shards.shapes)
        self.parts: dict[PartName, Mapping[str, Tensor]] = {"weights": self._shards}
        self.files = find_parts(path)
        for part, file in self.files.items():
            require_inside(file, path)
            tensors = read_pickle(file)
            self.parts[part] = VisionFile(tensors) if part == "vision" else tensors
        self.head: Head = get_head(self.files["head"], self.parts["head"]) if "head" in self.parts else "l1"
        require_one_checkpoint(path, self.config, self.files, self.head)
        if without_memory:
            self._drop_memory()
        module = self.parts.get("memory")
        self.memory: MemoryMeta | None = None if module is None else read_memory_meta(path / MEMORY_META, module)

    def _drop_memory(self) -> None:
        if self.family != "muvla":
            raise MuvlaError(
                "--without-memory",
                got=f"{self.path}, a checkpoint without memory",
                expected="a μVLA checkpoint",
                remedy="omit --without-memory",
            )
        del self.parts["memory"], self.files["memory"]

    @property
    def family(self) -> Family:
        """The release that the directory belongs to, by its parts."""
        if "memory" in self.parts:
            return "muvla"
        return "oft" if "head" in self.parts else "openvla"

    @property
    def film(self) -> bool:
        return "vision" in self.parts

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Quantiles by dataset key; OpenVLA keeps them in config.json."""
        file = self.path / STATISTICS
        if file.exists():
            statistics, where = read_object(file), str(file)
        else:
            statistics, where = self.config.get("norm_stats") or {}, f"{self.path / CONFIG}: norm_stats"
        require_statistics(statistics, where)
        return statistics

    @cached_property
    def constants(self) -> Constants:
        """Numbers of the computation that the directory stores beside its weights."""
        return read_constants(self.path, self.config)

    @cached_property
    def fields(self) -> list[FieldStatus]:
        """The status of every file and field: used, irrelevant or refused."""
        return audit(
            Audited(
                self.path,
                self.config,
                self.size,
                frozenset(file.name for file in self.read_files()),
                self.statistics,
                self._tokenizer(),
                self._has_tokenizer,
            )
        )

    def _tokenizer(self) -> Tokenizer | None:
        try:
            return self.prompts().tokenizer if self._has_tokenizer else None
        except MuvlaError:  # `differences` lists it
            return None

    @property
    def step(self) -> str:
        """The training step in the file names: a number, or "latest"."""
        return get_step(self.files["head"]) if self.files else "latest"

    def read_files(self) -> list[Path]:
        """Returns every file that decides what the policy computes, and no other file."""
        files = {self.path / CONFIG, *self.files.values(), *self._shards.files.values()}
        if self.family != "openvla":
            files.add(self.path / STATISTICS)
        if self.memory is not None:
            files.add(self.path / MEMORY_META)
        if self._has_tokenizer:
            files.add(self.path / TOKENIZER)
        return sorted(files)

    def content(self) -> str:
        """Returns the hash of `read_files`: independent of the directory's place and of other files in it.

        The hash includes files that a training with start.parts=weights does not read.
        """
        return content_hash(self.hashes() | self.stored_normalisation())

    def hashes(self) -> dict[str, str]:
        """Returns the hash of every file in `read_files`, by name."""
        return {file.name: sha256(file) for file in self.read_files()}

    def stored_normalisation(self) -> dict[str, Any]:
        """Returns the constants of `preprocessor_config.json` that differ from the textbook's, under its name.

        They are part of the identity. The file itself is not, because its other fields decide nothing.
        """
        return identify_normalisation(self.constants)

    def skeleton(self) -> Policy:
        """Returns the policy of these files without values: parameters on the meta device, buffers with values.

        OpenVLA has no action head, so its action dimensions in the skeleton are placeholders.
        """
        head, proprio = self.parts.get("head", {}), self.parts.get("proprio", {})
        interface = Interface(
            cameras=self.config.get(CAMERAS_KEY, 2),
            first_image=self.config.get(FIRST_IMAGE_KEY, False),
            proprio_dim=_columns(proprio, "fc1.weight") if proprio else proprio_dimension(self.statistics),
            action_dim=_rows(head, f"{names.HEADS[self.head]}fc2.weight"),
            text=64,
            text_padded=True,
        )
        memory = self.memory or MemoryMeta(MemoryConfig(), 1, "full")
        model = ModelConfig(
            self.size,
            CHUNK,
            guard=memory.guard,
            memory_positions="shift",
            images=self.config.get(IMAGES_KEY, "released"),
            head=self.head,
            proprio=self.config.get(PROPRIO_KEY, True),
            film=self.film,
        )
        with init_empty_weights(include_buffers=False):
            mechanism = build_memory(memory.mechanism, dimensions_of(model, interface))
            return Policy(model, mechanism, interface, constants=self.constants)

    @property
    def _has_tokenizer(self) -> bool:
        """False for exports of trainings without a starting checkpoint: their prompts are the package's."""
        return not self.config.get(BUILT_IN_KEY)

    def prompts(self) -> Prompts:
        return load_released_prompts(self.path / TOKENIZER) if self._has_tokenizer else built_in_prompts()

    def parts_for(self, policy: Policy, parts: Literal["all", "weights"]) -> list[PartName]:
        """Returns the parts that the directory holds and `policy` uses; with `weights`, towers and language alone."""
        usable = [part for part in get_rules(policy, self.film) if part in self.parts]
        return usable if parts == "all" else [part for part in usable if part in ("weights", "vision")]

    def differences(self) -> list[str]:
        """Returns a line for everything that would not load, by names and headers alone.

        Lines name refused fields, tensors that are missing, unexpected, misshapen or no floats, statistics of another
        robot, and a foreign tokenizer. `value_differences` looks at the numbers.
        """
        skeleton = self.skeleton()
        lines = self._tensor_differences(skeleton, list(self.parts)) + refused(self.fields)
        if self.family != "openvla":
            lines += statistics_differences(self.statistics, skeleton.interface)
        try:
            lines += prompt_differences(self.prompts(), self.size.vocabulary)
        except MuvlaError as error:
            lines.append(f"tokenizer: {error}")
        return lines

    def value_differences(self) -> list[str]:
        """Returns a line for every tensor with NaN or infinity. Reads every value."""
        return [
            line
            for part, tensors in self.parts.items()
            for name in tensors
            if (line := value_difference(part, name, tensors[name]))
        ]

    def _tensor_differences(self, policy: Policy, parts: list[PartName]) -> list[str]:
        expected = expected_shapes(policy, self.film)
        lines = [line for p in parts for line in tensor_differences(p, get_shapes(self.parts[p]), expected[p])]
        return lines + [line for p in parts for line in dtype_differences(p, self.parts[p])]

    def _require_none(self, differences: list[str], expected: str, remedy: str) -> None:
        if differences:
            more = f"; and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
            got = "; ".join(differences[:LISTED]) + more
            raise MuvlaError(str(self.path), got=got, expected=expected, remedy=remedy)

    def require_loadable(self) -> None:
        """Raises MuvlaError with the differences, and for OpenVLA, which has no action head."""
        if self.family == "openvla":
            raise MuvlaError(
                str(self.path),
                got="weights without an action head",
                expected="an OpenVLA-OFT or μVLA checkpoint",
                remedy="use OpenVLA, which predicts action tokens, as the start of a training (start.checkpoint)",
            )
        self._require_none(self.differences(), f"the tensors and fields of size {self.size.name!r}", LIST_ALL)

    def values(
        self, policy: Policy, parts: list[PartName], dtype: Callable[[str, torch.Size], torch.dtype]
    ) -> dict[str, Tensor]:
        """Returns copies of `policy`'s parameters that these parts hold.

        Args:
            policy: gives names and shapes.
            parts: the parts to read.
            dtype: returns the dtype of a parameter from its name and shape.

        Raises:
            MuvlaError: a tensor is missing, unexpected, misshapen or no finite float, or a field is refused.
        """
        differences = self._tensor_differences(policy, parts) + refused(self.fields)
        remedy = "set start.parts to weights, which draws head, proprio projector and memory anew"
        if not all(line.startswith(("head: ", "noisy: ", "proprio: ", "memory: ")) for line in differences):
            remedy = LIST_ALL
        self._require_none(differences, "the tensors and fields of this policy", remedy)
        rules, values, lines = get_rules(policy, self.film), {}, []
        for part in parts:
            tensors = self.parts[part]
            for rule in rules[part]:
                published = [tensors[name] for name in rule.published]
                checked = zip(rule.published, published, strict=True)
                lines += [line for name, tensor in checked if (line := value_difference(part, name, tensor))]
                loaded = rule.load(*published)
                values |= {n: v.to(dtype(n, v.shape), copy=True) for n, v in zip(rule.ours, loaded, strict=True)}
        self._require_none(lines, "finite numbers", "choose another checkpoint: no policy computes with these values")
        return values

    def load_policy(self, precision: ReleasedPrecision = "float32", device: str = "cpu") -> Policy:
        """Returns the policy on `device`; loading is strict.

        In bfloat16 the matrices take half the memory, in nf4 those of the language model a seventh.

        Raises:
            MuvlaError: something would not load (`differences`), or bitsandbytes is missing for nf4.
        """
        if precision == "nf4":
            import_bitsandbytes()
        self.require_loadable()
        policy = self.skeleton()
        policy.prompts = self.prompts()
        policy.config = replace(policy.config, precision="float32" if precision == "float32" else "bfloat16")

        def dtype(name: str, shape: torch.Size) -> torch.dtype:
            # As published: proprio is float32, and the memory is carried in the dtype of its initial values.
            matrix = len(shape) > 1 and not name.startswith(("proprio.", "memory."))
            return torch.bfloat16 if matrix and policy.config.precision == "bfloat16" else torch.float32

        values = self.values(policy, list(self.parts), dtype)
        for name in names.never_published(dict(policy.named_parameters())):
            values[name] = torch.zeros(policy.get_parameter(name).shape)
        policy.load_state_dict(values, assign=True)
        if precision == "nf4":
            quantize(policy, device)
        return policy.to(device)

    def carried(self, film: bool) -> dict[str, Tensor]:
        """Returns the tensors of the weights that no policy reads; with FiLM also the towers, which stand elsewhere."""
        read = {name for rule in names.vla_rules(self.size, towers=not film) for name in rule.published}
        return {name: self._shards[name] for name in self._shards if name not in read}

    def upstream_files(self) -> dict[str, bytes]:
        """Returns the files that only upstream's code needs, by name."""
        read = (CONFIG, STATISTICS, MEMORY_META, INDEX)
        files = {file for pattern in UPSTREAM_FILES for file in self.path.glob(pattern) if file.name not in read}
        return {file.name: file.read_bytes() for file in sorted(files)}


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors else 1


def _columns(tensors: Mapping[str, Tensor], name: str) -> int:
    return tensors[name].shape[-1] if name in tensors else 1
