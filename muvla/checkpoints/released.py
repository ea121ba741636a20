"""Released checkpoint directories of OpenVLA, OpenVLA-OFT and μVLA, in and out (spec 1.2, 2.7).

    config.json                            the anatomy
    model.safetensors[.index.json]         towers, projector, language model, with their LoRA merged
    vision_backbone--STEP_checkpoint.pt    with FiLM: the trained towers, which the weights then do not hold, and FiLM
    action_head--STEP_checkpoint.pt        OFT and μVLA
    noisy_action_projector--STEP_…pt       OFT with a diffusion head
    proprio_projector--STEP_checkpoint.pt  OFT and μVLA
    dataset_statistics.json                OFT and μVLA: quantiles by dataset
    tokenizer.json                         Llama's, fast
    memory_module--STEP_checkpoint.pt      μVLA: the initial memory
    memory_meta.json                       μVLA: m, update rule, α, K, mask mode

Opening a directory reads JSON and headers alone; what it would not load can then be listed without reading gigabytes.
Nothing executes remote code, and pickles are read with `weights_only`. Files that only upstream's code needs (processor
and tokenizer settings) are carried along as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from torch import Tensor

from muvla.checkpoints import names as published
from muvla.checkpoints.comparison import shapes_of, statistics_differences, tensor_differences
from muvla.checkpoints.film_weights import VisionFile, vision_tensors
from muvla.checkpoints.metadata import (
    BUILT_IN_KEY,
    CAMERAS_KEY,
    CONFIG,
    FIRST_IMAGE_KEY,
    IMAGES_KEY,
    MEMORY_META,
    PROPRIO_KEY,
    MemoryMeta,
    read_memory_meta,
    require_fused_openvla,
    size_of,
)
from muvla.checkpoints.names import Rule, Shapes
from muvla.checkpoints.parts import (
    PREFIXES,
    STATISTICS,
    TOKENIZER,
    Head,
    file_name,
    head_of,
    part_files,
    require_one_checkpoint,
    step_of,
)
from muvla.checkpoints.tensors import INDEX, Shards, pickled, read_pickle, sha256, write_verified, write_weights
from muvla.config import MemoryConfig, ModelConfig, ReleasedPrecision
from muvla.config.model import SizeConfig
from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.lora import MergedParameters
from muvla.models.policy import Interface, Policy
from muvla.models.prompts import Prompts, built_in_prompts, load_released_prompts
from muvla.models.quantization import import_bitsandbytes, quantize
from muvla.utils.io import disk_errors, read_json, write_json

HALF, SINGLE = torch.bfloat16, torch.float32
DTYPES = {"weights": HALF, "head": HALF, "noisy": SINGLE, "proprio": SINGLE, "memory": HALF}
CHUNK = 8  # H of every release (spec 1.9); no file tells it
UPSTREAM_FILES = ("*.json", "*.model", "*.py")

Kind = Literal["openvla", "oft", "muvla"]


@dataclass(frozen=True)
class Release:
    """A policy with everything else that its directory holds, so that writing it gives the same directory again."""

    policy: Policy
    carried: dict[str, Tensor]  # of the weights: published, never read by the policy
    config: dict[str, Any]
    statistics: dict[str, Any]  # by dataset key
    memory_meta: dict[str, Any] | None = None
    step: str = "latest"
    upstream: dict[str, bytes] = field(default_factory=dict)  # files for upstream's code, the tokenizer's among them
    vision: VisionFile | None = None  # with FiLM: what the towers and FiLM were read from


@dataclass
class ReleasedCheckpoint:
    """A released directory, its headers read. Raises MuvlaError for what is missing, unreadable or contradictory.

    `size` is needed only where config.json names neither a released backbone nor a size of ours. `without_memory`
    leaves the memory of a μVLA checkpoint out: the OFT computation remains, without tokens and with the guard `full`.
    """

    path: Path
    size: SizeConfig | None = None
    without_memory: bool = False
    parts: dict[str, Mapping[str, Tensor]] = field(init=False)  # weights, vision, head, proprio, memory
    files: dict[str, Path] = field(init=False)
    head: Head = field(init=False)

    def __post_init__(self):
        self.config: dict[str, Any] = read_json(self.path / CONFIG)
        require_fused_openvla(self.path / CONFIG, self.config)
        self.size = self.size or size_of(self.path / CONFIG, self.config)
        shards = Shards(self.path)
        self.parts = {"weights": shards}
        self.files = part_files(self.path)
        for part, file in self.files.items():
            tensors = read_pickle(file)
            self.parts[part] = VisionFile(tensors) if part == "vision" else tensors
        self.head = head_of(self.files["head"], self.parts["head"]) if "head" in self.parts else "l1"
        require_one_checkpoint(self.path, self.config, self.files, self.head)
        if self.without_memory:
            if self.kind != "muvla":
                raise MuvlaError(
                    str(self.path),
                    got="a checkpoint that has no memory",
                    expected="one to leave it out of",
                    remedy="take --without-memory away",
                )
            del self.parts["memory"], self.files["memory"]
        module = self.parts.get("memory")
        self.memory = None if module is None else read_memory_meta(self.path / MEMORY_META, module)

    @property
    def _has_proprio(self) -> bool:
        return self.config.get(PROPRIO_KEY, True)

    @property
    def kind(self) -> Kind:
        return "muvla" if "memory" in self.parts else "oft" if "head" in self.parts else "openvla"

    @property
    def film(self) -> bool:
        return "vision" in self.parts

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """By dataset key; OpenVLA itself keeps them in config.json."""
        own = self.path / STATISTICS
        return read_json(own) if own.exists() else self.config.get("norm_stats", {})

    @property
    def step(self) -> str:
        """Of the training, as the file names tell it: a number, or "latest"."""
        return step_of(self.files["head"]) if self.files else "latest"

    def read_files(self) -> list[Path]:
        """Every file that decides what the policy computes, and no other."""
        names = [CONFIG, *[STATISTICS] * (self.kind != "openvla"), *[MEMORY_META] * (self.memory is not None)]
        names += [TOKENIZER] * self._own_tokenizer
        shards = set(self.parts["weights"].files.values())
        return sorted({*(self.path / name for name in names), *self.files.values(), *shards})

    def content(self) -> str:
        """Hash of every file that may decide what the policy computes, wherever they lie and whatever lies beside them;
        also of those that a training with parts=weights leaves aside."""
        return content_hash({file.name: sha256(file) for file in self.read_files()})

    def skeleton(self) -> Policy:
        """The policy of these files without values: its parameters are on the meta device, its buffers are there.

        OpenVLA itself has no action head, so that its dimensions here are the caller's to choose later.
        """
        head, proprio = self.parts.get("head", {}), self.parts.get("proprio", {})
        interface = Interface(
            cameras=self.config.get(CAMERAS_KEY, 2),
            first_image=self.config.get(FIRST_IMAGE_KEY, False),
            proprio_dim=_columns(proprio, "fc1.weight") if proprio else self._told_proprio(),
            action_dim=_rows(head, f"{published.HEADS[self.head]}fc2.weight"),
            text=64,
            text_padded=True,
        )
        memory = self.memory or MemoryMeta(MemoryConfig(), 1, "full")
        images = self.config.get(IMAGES_KEY, "released")
        model = ModelConfig(
            self.size,
            CHUNK,
            guard=memory.guard,
            memory_positions="shift",
            images=images,
            head=self.head,
            proprio=self._has_proprio,
            film=self.film,
        )
        with init_empty_weights(include_buffers=False):
            return Policy(model, build_memory(memory.mechanism, self.size.width), interface)

    def _told_proprio(self) -> int:
        """How many numbers there are of what the policy is not told, by the statistics; 1 where they do not tell."""
        entries = [e for e in self.statistics.values() if isinstance(e, dict) and isinstance(e.get("proprio"), dict)]
        return max((len(e["proprio"].get("q01", [])) for e in entries), default=1)

    @property
    def _own_tokenizer(self) -> bool:
        """Whether it brings one; in exports of trainings that began from nothing the prompts are the package's."""
        return not self.config.get(BUILT_IN_KEY)

    def prompts(self) -> Prompts:
        return load_released_prompts(self.path / TOKENIZER) if self._own_tokenizer else built_in_prompts()

    def parts_for(self, policy: Policy, wanted: Literal["all", "weights"]) -> list[str]:
        """Those that are here, that `policy` has a place for, and that are wanted."""
        always = ("weights", "vision")
        return [p for p in rules_of(policy, self.film) if p in self.parts and (wanted == "all" or p in always)]

    def differences(self) -> list[str]:
        """What would not load: every missing, unexpected or misshapen tensor, statistics of another robot, and a
        tokenizer that is none of Llama's."""
        skeleton = self.skeleton()
        lines = self._tensor_differences(skeleton, list(self.parts))
        if self.kind != "openvla":
            lines += statistics_differences(self.statistics, skeleton.interface)
        try:
            self.prompts()
        except MuvlaError as error:
            lines.append(f"tokenizer: {error}")
        return lines

    def _tensor_differences(self, policy: Policy, parts: list[str]) -> list[str]:
        expected = expected_shapes(policy, self.film)
        return [line for p in parts for line in tensor_differences(p, shapes_of(self.parts[p]), expected[p])]

    def _require(self, wrong: list[str], expected: str, remedy: str) -> None:
        if wrong:
            more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
            raise MuvlaError(str(self.path), got="; ".join(wrong[:8]) + more, expected=expected, remedy=remedy)

    def require_loadable(self) -> None:
        """Raises MuvlaError that lists the differences, and for OpenVLA itself."""
        if self.kind == "openvla":
            raise MuvlaError(
                str(self.path),
                got="weights without an action head",
                expected="an OpenVLA-OFT or μVLA checkpoint",
                remedy="OpenVLA itself predicts action tokens; use it as the base of a fine-tuning",
            )
        remedy = "`muvla inspect` lists all; download the checkpoint again, or name its size"
        self._require(self.differences(), f"the tensors of size {self.size.name!r}", remedy)

    def values(
        self, policy: Policy, parts: list[str], dtype: Callable[[str, torch.Size], torch.dtype]
    ) -> dict[str, Tensor]:
        """`policy`'s parameters that these parts hold, copied; `dtype` is asked for each, by name and shape. Raises
        MuvlaError that lists what does not fit."""
        wrong = self._tensor_differences(policy, parts)
        whole = [line for line in wrong if line.startswith(("weights: ", "vision: "))]
        remedy = "`muvla inspect` lists all; download the checkpoint again"
        remedy = remedy if whole else "start.parts=weights draws head, proprio projector and memory anew"
        self._require(wrong, "the tensors of this policy", remedy)
        rules, values = rules_of(policy, self.film), {}
        for part in parts:
            tensors = self.parts[part]
            for rule in rules[part]:
                loaded = rule.load(*(tensors[name] for name in rule.published))
                values |= {n: v.to(dtype(n, v.shape), copy=True) for n, v in zip(rule.ours, loaded, strict=True)}
        return values

    def load(self, precision: ReleasedPrecision = "float32", device: str = "cpu") -> Release:
        """Strict; in bfloat16 the matrices take half the memory, in nf4 those of the language model a seventh, on
        `device`. Raises MuvlaError for what would not load."""
        if precision == "nf4":
            import_bitsandbytes()
        self.require_loadable()
        policy = self.skeleton()
        policy.prompts = self.prompts()
        policy.config = replace(policy.config, precision="float32" if precision == "float32" else "bfloat16")

        def dtype(name: str, shape: torch.Size) -> torch.dtype:
            # As published: proprio in float32, and the memory is carried in what its initial values have.
            matrix = len(shape) > 1 and not name.startswith(("proprio.", "memory."))
            return torch.bfloat16 if matrix and policy.config.precision == "bfloat16" else torch.float32

        values = self.values(policy, list(self.parts), dtype)
        for name in published.never_published(dict(policy.named_parameters())):
            values[name] = torch.zeros(policy.get_parameter(name).shape)
        policy.load_state_dict(values, assign=True)
        if precision == "nf4":
            quantize(policy, device)
        policy.to(device)
        meta = read_json(self.path / MEMORY_META) if self.memory else None
        carried, upstream = self.carried(self.film), self.upstream_files()
        vision = self.parts.get("vision")
        return Release(policy, carried, self.config, self.statistics, meta, self.step, upstream, vision)

    def carried(self, film: bool) -> dict[str, Tensor]:
        """Of the weights: published, and never read by a policy; with FiLM the towers too, which stand elsewhere."""
        weights = self.parts["weights"]
        read = {name for rule in published.vla_rules(self.size, towers=not film) for name in rule.published}
        return {name: weights[name] for name in weights if name not in read}

    def upstream_files(self) -> dict[str, bytes]:
        own = (CONFIG, STATISTICS, MEMORY_META, INDEX)
        found = {file for pattern in UPSTREAM_FILES for file in self.path.glob(pattern) if file.name not in own}
        return {file.name: file.read_bytes() for file in sorted(found)}


def save(release: Release, path: Path) -> None:
    """Writes the directory in the published names and dtypes, and reads every file again to check it.

    What the policy never reads and was never given (`carried`) is written as zeros.
    """
    require_new(path)
    policy, size, film = release.policy, release.policy.config.size, release.policy.config.film
    ours = MergedParameters(policy)
    unread = _unread_shapes(ours, size, film)
    with disk_errors(path), torch.no_grad():
        path.mkdir(parents=True, exist_ok=True)
        for part, rules in rules_of(policy, film).items():
            values: dict[str, Tensor] = {}
            for rule in rules:
                saved = rule.save(*(ours[name].detach() for name in rule.ours))
                values |= dict(zip(rule.published, saved, strict=True))
            carried = release.vision if part == "vision" and release.vision is not None else release.carried
            for name, shape in unread.get(part, {}).items():
                values[name] = carried[name] if name in carried else torch.zeros(shape)
            if part == "vision":
                tensors = vision_tensors(values, release.vision)
            else:
                tensors = {name: value.to(DTYPES[part]) for name, value in values.items()}
            if part == "weights":
                write_weights(path, tensors)
            else:
                content = pickled({PREFIXES.get(part, "") + name: tensor for name, tensor in tensors.items()})
                write_verified(path / file_name(part, release.step), content)
    for name, content in release.upstream.items():
        with disk_errors(path):
            (path / name).parent.mkdir(exist_ok=True)
        write_verified(path / name, content)
    write_json(path / STATISTICS, release.statistics)
    if release.memory_meta is not None:
        write_json(path / MEMORY_META, release.memory_meta)
    write_json(path / CONFIG, release.config)  # last: without it the directory is none
    if wrong := ReleasedCheckpoint(path, size).differences():
        raise MuvlaError(
            str(path),
            got="; ".join(wrong[:8]),
            expected="a directory that loads",
            remedy="correct what was given to be written",
        )


def require_new(path: Path) -> None:
    """Raises MuvlaError for a file, and for a folder that holds any."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        got = "a folder with files" if path.is_dir() else "a file"
        raise MuvlaError(str(path), got=got, expected="a new folder", remedy="choose another one")


def rules_of(policy: Policy, film: bool) -> dict[str, list[Rule]]:
    """By part, in the order in which a directory holds them. `film` is the directory's: a policy may have FiLM and
    start from one without."""
    config = policy.config
    rules = {"weights": published.vla_rules(config.size, towers=not film)}
    rules |= {"vision": published.vision_rules(config.size)} if film else {}
    rules |= {"head": published.head_rules(config.head)}
    rules |= {"noisy": published.noisy_rules()} if policy.noisy else {}
    rules |= {"proprio": published.proprio_rules()} if policy.proprio else {}
    return rules | ({"memory": published.memory_rules()} if policy.memory.width else {})


def expected_shapes(policy: Policy, film: bool) -> dict[str, Shapes]:
    """Published names and shapes of everything that belongs to a policy, by part."""
    ours = dict(policy.named_parameters())
    shapes, unread = {}, _unread_shapes(ours, policy.config.size, film)
    for part, rules in rules_of(policy, film).items():
        shapes[part] = _published_shapes(rules, ours) | unread.get(part, {})
    return shapes


def _unread_shapes(ours: dict[str, Tensor], size: SizeConfig, film: bool) -> dict[str, Shapes]:
    """What is published and read by no policy, by part; with FiLM the weights' towers too."""
    if not film:
        return {"weights": published.carried_shapes(size)}
    towers = _published_shapes(published.tower_rules(size), ours)
    return {"weights": published.carried_shapes(size) | towers, "vision": published.carried_vision_shapes(size)}


def _published_shapes(rules: list[Rule], ours: dict[str, Tensor]) -> Shapes:
    return {name: shape for rule in rules for name, shape in rule.published_shapes(ours).items()}


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors else 1


def _columns(tensors: Mapping[str, Tensor], name: str) -> int:
    return tensors[name].shape[-1] if name in tensors else 1
