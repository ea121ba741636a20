"""Training files of Prismatic, `{"model": {module: {name: tensor}}}`, and their run folders.

    RUN/config.json or config.yaml         fields of the training
    RUN/dataset_statistics.json            quantiles by dataset
    RUN/checkpoints/step-….pt              the training file, float32; also RUN/….pt
    RUN/model.safetensors[.index.json]     the same tensors under `module.name`, after `muvla convert`

Pickles are read with `weights_only` and mapped into memory: no code of a file runs, and values are read on use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from muvla.checkpoints.metadata import CONFIG
from muvla.checkpoints.tensors import INDEX, WEIGHTS, Shards, explain_entry, load_pickle
from muvla.errors import MuvlaError
from muvla.utils.content import require_real
from muvla.utils.files import TEXT_BYTES, read_text
from muvla.utils.foreign import read_object, require_object

CONFIG_YAML, CHECKPOINTS = "config.yaml", "checkpoints"
# Fields by which the configuration of a training of Prismatic is known.
MARKS = ("vla", "base_vlm")


def find_run_folder(path: Path) -> Path | None:
    """Returns the run folder of a training of Prismatic, which `path` names or whose training file it names; None for
    anything else."""
    folder = path
    try:
        if path.suffix == ".pt" and path.is_file():
            folder = path.parent.parent if path.parent.name == CHECKPOINTS else path.parent
        if not folder.is_dir() or not any((folder / name).exists() for name in (CONFIG, CONFIG_YAML)):
            return None
    except OSError:  # a name that no file system takes
        return None
    try:
        config = read_config(folder)
    except MuvlaError:
        return None  # its reader names the damage
    return folder if any(mark in config for mark in MARKS) else None


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json, or config.yaml where there is none."""
    if (folder / CONFIG).exists():
        return read_object(folder / CONFIG)
    path = folder / CONFIG_YAML
    try:
        data = yaml.safe_load(read_text(path, TEXT_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise MuvlaError(
            str(path),
            got=f"broken YAML ({str(error).splitlines()[0][:120]})",
            expected="the configuration that the training wrote",
            remedy=f"take {CONFIG_YAML} or {CONFIG} of the same run",
        ) from None
    return require_object(data, str(path))


def find_training_file(folder: Path, named: Path) -> Path | None:
    """Returns the training file of a run folder; None where converted weights take its place.

    Args:
        folder: the run folder.
        named: the path as the user gave it: the folder, or a training file in it.

    Raises:
        MuvlaError: the folder has no training file, or several.
    """
    if named != folder:
        return named
    if (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        return None
    files = sorted((folder / CHECKPOINTS).glob("*.pt")) or sorted(folder.glob("*.pt"))
    if len(files) == 1:
        return files[0]
    got = f"{len(files)} training files: {', '.join(file.name for file in files[:3])}"
    raise MuvlaError(
        str(folder),
        got=got if files else "no training file",
        expected=f"one {CHECKPOINTS}/step-….pt, or {WEIGHTS}",
        remedy=f"name a file, such as {files[-1]}"
        if files
        else f"fetch the run's .pt file into {folder / CHECKPOINTS}",
    )


def read_training_file(path: Path) -> dict[str, Tensor]:
    """Returns tensors by `module.name`. Raises MuvlaError for a file that holds anything else, or code."""
    require_real(path, "a training file of Prismatic")
    content = load_pickle(path, "a file of torch.save with modules of tensors, and nothing that runs code")
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not model:
        keys = ", ".join(map(str, list(content)[:3])) if isinstance(content, dict) else type(content).__name__
        raise MuvlaError(
            str(path),
            got=f"no dictionary `model` ({keys})",
            expected="the modules of the policy under `model`",
            remedy="name the training file checkpoints/step-….pt of the run",
        )
    tensors: dict[str, Tensor] = {}
    wrong: list[str] = []
    for module, entries in model.items():
        inside = entries.items() if isinstance(entries, dict) else [("", entries)]
        for name, tensor in inside:
            if (problem := explain_entry(name, tensor)) is not None:
                wrong.append(f"{module}.{name}: {problem}")
            else:
                tensors[f"{module}.{name}"] = tensor
    if wrong:
        raise MuvlaError(
            str(path),
            got="; ".join(wrong[:3]),
            expected="dense tensors by module and name",
            remedy="take the file as the published training saved it: this file holds something else",
        )
    return tensors


def open_tensors(folder: Path, file: Path | None) -> Mapping[str, Tensor]:
    """Opens the tensors of a run folder by `module.name`: of the training file, or of the converted weights."""
    return Shards(folder) if file is None else read_training_file(file)


def pickle_modules(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a training file. The tensors are float32, as published."""
    model: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        module, name = full.split(".", 1)
        model.setdefault(module, {})[name] = tensor.detach().to(torch.float32).contiguous()
    torch.save({"model": model}, path)
