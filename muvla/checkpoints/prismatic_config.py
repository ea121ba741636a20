"""config.json or config.yaml of a training of Prismatic, in the words of this project (MemoryVLA spec 2.3, 3, 13)."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from muvla.checkpoints.fields import FieldStatus, Irrelevant, Used, equal_to, judge
from muvla.checkpoints.metadata import BUILT_IN_KEY, CAMERAS_KEY, CONFIG, IMAGES_KEY, SIZE_KEY
from muvla.checkpoints.training_file import CONFIG_YAML
from muvla.config import MemoryConfig
from muvla.config.expert import EXPERTS, ExpertConfig
from muvla.config.model import SizeConfig
from muvla.config.serialization import from_dict
from muvla.config.sizes import MEMORYVLA_7B
from muvla.errors import MuvlaError, located, unknown_name

# Exports of this project write this key: the expert, for sizes that no release has.
EXPERT_KEY = "muvla_expert"
SIZE_OF_VLM = {"prism-dinosiglip-224px+7b": MEMORYVLA_7B}
CONSOLIDATION = {"tome": "merge", "fifo": "fifo"}
TRAINING = Irrelevant("concerns the training alone")


def config_file(folder: Path) -> Path:
    """The file that states the configuration."""
    return folder / (CONFIG if (folder / CONFIG).exists() else CONFIG_YAML)


def read_size(folder: Path, config: Mapping[str, Any]) -> SizeConfig:
    """Returns the sizes of towers and language model.

    Raises MuvlaError for another vision-language model, such as Qwen in a checkpoint of Dexbotic.
    """
    if SIZE_KEY in config:
        with located(config_file(folder)):
            return from_dict(SizeConfig, config[SIZE_KEY], f"{SIZE_KEY}.")
    vla = config.get("vla")
    base = vla.get("base_vlm") if isinstance(vla, dict) else config.get("base_vlm")
    if base not in SIZE_OF_VLM:
        raise MuvlaError(
            f"{config_file(folder)}: vla.base_vlm",
            got=base,
            expected=f"one of {', '.join(SIZE_OF_VLM)}: Prismatic with DINOv2, SigLIP and Llama 2 7B",
            remedy="choose a checkpoint of this model; other language models and towers cannot be read",
        )
    return SIZE_OF_VLM[base]


def read_expert(folder: Path, config: Mapping[str, Any], family: str) -> tuple[ExpertConfig, int, int]:
    """Returns the expert, H and A. The file states neither guidance nor sampler: they have the published values."""
    if EXPERT_KEY in config:
        with located(config_file(folder)):
            expert = from_dict(ExpertConfig, config[EXPERT_KEY], f"{EXPERT_KEY}.")
    else:
        name = config.get("action_model_type", "DiT-B")
        if name not in EXPERTS or name == "tiny":
            released = [size for size in EXPERTS if size != "tiny"]
            raise unknown_name(f"{config_file(folder)}: action_model_type", name, released)
        expert = EXPERTS[name]
        if family == "cronusvla":
            expert = replace(expert, guided_axis="time", outputs="binary")
        elif family == "cogact":
            expert = replace(expert, outputs="binary")
    chunk = _whole(folder, config, "future_action_window_size", 15, 0) + 1
    return expert, chunk, _whole(folder, config, "action_dim", 7, 1)


def read_memory(folder: Path, config: Mapping[str, Any], family: str, modules: set[str]) -> MemoryConfig:
    """Returns the mechanism. Its time is the count of queries, as the published server counts.

    Args:
        folder: the run folder, for errors.
        config: its configuration.
        family: whose policy the file holds.
        modules: modules of the memory in the file.
    """
    if family == "cronusvla":
        past = _whole(folder, config, "past_action_window_size", 6, 1)
        return MemoryConfig("feature_fifo", place="condition", capacity=past)
    if family != "memoryvla":
        return MemoryConfig()
    streams = {("cog_mem_bank",): "cognitive", ("per_compr", "per_mem_bank"): "perceptual"}
    return MemoryConfig(
        "bank",
        place="condition",
        capacity=_whole(folder, config, "mem_length", 16, 1),
        layers=_whole(folder, config, "retrieval_layers", 2, 1),
        perceptual_width=_whole(folder, config, "per_token_size", 256, 1),
        streams=streams.get(tuple(sorted(modules)), "both"),
        time_code="call" if _flag(folder, config, "use_timestep_pe", True) else "none",
        fusion=_among(folder, config, "fusion_type", ("gate", "add")),
        consolidation=CONSOLIDATION[_among(folder, config, "consolidate_type", tuple(CONSOLIDATION))],
        stored="fused" if _flag(folder, config, "update_fused", False) else "raw",
    )


def judge_fields(file: str, config: Mapping[str, Any]) -> Iterator[FieldStatus]:
    """Yields the status of every field of the configuration.

    A field that is unknown belongs to the training, unless its name is a slip of a field that decides the computation.
    """
    rules: dict[str, Used | Irrelevant] = {name: USED.get(name, TRAINING) for name in config}
    for name in config.keys() - USED.keys():
        if near := difflib.get_close_matches(name, USED, n=1, cutoff=0.85):
            rules[name] = Used(lambda value: False, f"{near[0]}, if that is meant")
    yield from judge(file, config, rules)


# Fields that decide the computation.
ARCHITECTURE = (
    "vla",
    "base_vlm",
    "action_model_type",
    "future_action_window_size",
    "past_action_window_size",
    "action_dim",
    "mem_length",
    "retrieval_layers",
    "per_token_size",
    "use_timestep_pe",
    "fusion_type",
    "consolidate_type",
    "update_fused",
)
CHECKED = Used(lambda value: True, "")  # where the value is read
USED: dict[str, Used] = dict.fromkeys(
    (*ARCHITECTURE, SIZE_KEY, EXPERT_KEY, BUILT_IN_KEY, CAMERAS_KEY, IMAGES_KEY), CHECKED
)
USED["use_ema"] = equal_to(False, None)


def _whole(folder: Path, config: Mapping[str, Any], name: str, default: int, least: int) -> int:
    value = config.get(name, default)
    if type(value) is not int or not least <= value <= 10_000:
        raise _mistyped(folder, name, value, f"a whole number from {least} to 10000")
    return value


def _flag(folder: Path, config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name, default)
    if type(value) is not bool:
        raise _mistyped(folder, name, value, "true or false")
    return value


def _among(folder: Path, config: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = config.get(name, choices[0])
    if value not in choices:
        raise unknown_name(f"{config_file(folder)}: {name}", value, choices)
    return value


def _mistyped(folder: Path, name: str, got: Any, expected: str) -> MuvlaError:
    field = f"{config_file(folder)}: {name}"
    return MuvlaError(field, got=got, expected=expected, remedy=f"write the value of the training: {expected}")
