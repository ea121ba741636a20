"""The status of every file and field of a released directory: used, irrelevant or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from muvla.checkpoints.config_fields import get_norm_eps, get_rope_theta, judge_config
from muvla.checkpoints.fields import FieldStatus, Irrelevant, Used, judge
from muvla.checkpoints.metadata import CONFIG, MEMORY_META
from muvla.checkpoints.parts import IGNORED, STATISTICS, TOKENIZER
from muvla.checkpoints.preprocessor import PREPROCESSOR, TOWERS, judge_preprocessor, read_normalisation
from muvla.checkpoints.tensors import INDEX
from muvla.checkpoints.tokenizer_fields import (
    ADDED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    judge_tokenizer_file,
)
from muvla.config.model import SizeConfig
from muvla.models.constants import Constants
from muvla.utils.foreign import read_object

ANYTHING = Used(lambda value: True, "")  # checked where the value is read
GENERATION_CONFIG = "generation_config.json"
REASONS = {
    GENERATION_CONFIG: "concerns text generation alone",
    "tokenizer.model": "tokenizer.json holds the same tokenizer",
    "lora_adapter": "the weights are merged",
}
SUFFIXES = {".py": "code of a checkpoint is never executed", ".md": "text for people"}
UNREAD = "no file that the published policy reads"
BOUNDS = ("q01", "q99", "mask")


@dataclass(frozen=True)
class Audited:
    """The files of a directory that the audit needs to know about.

    Attributes:
        path: the directory.
        config: content of config.json.
        size: size of the policy.
        used: names of the files that decide the computation.
        statistics: quantiles by dataset key.
        tokenizer: the released tokenizer; None if the prompts are the package's, or the file is unreadable.
        has_tokenizer: the prompts are the directory's.
    """

    path: Path
    config: Mapping[str, Any]
    size: SizeConfig
    used: frozenset[str]
    statistics: Mapping[str, Any]
    tokenizer: Tokenizer | None
    has_tokenizer: bool


def read_constants(path: Path, config: Mapping[str, Any]) -> Constants:
    """Returns the constants that the directory stores, and defaults for those that it does not state."""
    file = path / PREPROCESSOR
    stored: dict[str, Any] = dict(read_normalisation(read_object(file))) if file.exists() else {}
    for name, value in (("norm_eps", get_norm_eps(config)), ("rope_theta", get_rope_theta(config))):
        if value is not None:
            stored[name] = value
    return Constants(**stored)


def identify_normalisation(constants: Constants) -> dict[str, Any]:
    """Returns the normalisation that differs from the textbook's, under the name of its file, for a content hash."""
    differing = {name: value for name, value in constants.differing().items() if name.startswith(TOWERS)}
    return {PREPROCESSOR: differing} if differing else {}


def audit(directory: Audited) -> list[FieldStatus]:
    """Returns the status of every file of the directory, and of every field of the files that the policy reads.

    Raises:
        MuvlaError: a JSON file is broken or no object.
    """
    statuses: list[FieldStatus] = []
    for file in sorted(directory.path.iterdir(), key=lambda path: path.name):
        statuses += _judge_file(directory, file)
    return statuses


def refused(statuses: list[FieldStatus]) -> list[str]:
    """Returns a line for every refused field."""
    return [status.line() for status in statuses if status.status == "refused"]


def _judge_file(directory: Audited, file: Path) -> Iterator[FieldStatus]:
    name = file.name
    if name == CONFIG:
        yield from judge_config(directory.config, directory.size, (directory.path / STATISTICS).exists())
    elif name == PREPROCESSOR:
        yield from judge_preprocessor(read_object(file), directory.size.image_size)
    elif name in (TOKENIZER_CONFIG, SPECIAL_TOKENS, ADDED_TOKENS) and directory.has_tokenizer:
        yield from judge_tokenizer_file(name, read_object(file), directory.tokenizer)
    elif name == MEMORY_META and name in directory.used:
        yield from _judge_memory_meta(read_object(file))
    elif name == STATISTICS and name in directory.used:
        yield from _judge_statistics(directory.statistics)
    elif name in directory.used or name == INDEX:
        yield FieldStatus(name, "", "used")
    else:
        yield FieldStatus(name, "", "irrelevant", _reason(file))


def _reason(file: Path) -> str:
    if file.name.split("--")[0] in IGNORED:
        return "for continuing a training upstream"
    if file.name == TOKENIZER:
        return "the prompts are the package's"
    return REASONS.get(file.name) or SUFFIXES.get(file.suffix) or UNREAD


def _judge_memory_meta(meta: Mapping[str, Any]) -> Iterator[FieldStatus]:
    ema = meta.get("memory_update") == "ema"
    rules = dict.fromkeys(("num_mem_tokens", "memory_update", "attention_mask_mode"), ANYTHING)
    unused = Irrelevant("the update rule does not use it")
    rules |= {"ema_alpha": ANYTHING if ema else unused, "tbptt_length": unused if ema else ANYTHING}
    yield from judge(MEMORY_META, meta, rules)


def _judge_statistics(statistics: Mapping[str, Any]) -> Iterator[FieldStatus]:
    scales = Irrelevant("no action is scaled by it")
    for key, entry in statistics.items():
        parts = entry if isinstance(entry, dict) else {}
        for part, bounds in parts.items():
            if part in ("action", "proprio") and isinstance(bounds, dict):
                rules = {name: ANYTHING if name in BOUNDS else scales for name in bounds}
                yield from judge(STATISTICS, bounds, rules, f"{key}.{part}.")
            else:
                yield FieldStatus(STATISTICS, f"{key}.{part}", "irrelevant", scales.reason)
