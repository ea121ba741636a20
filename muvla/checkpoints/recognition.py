"""Folders and files that are no released directory, named by their content with the command that helps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvla.checkpoints.metadata import CONFIG
from muvla.checkpoints.parts import PARTS, STATISTICS
from muvla.checkpoints.tensors import INDEX, WEIGHTS
from muvla.errors import MuvlaError
from muvla.utils.content import describe_format, find_placeholder
from muvla.utils.io import read_json

EXPECTED = "a merged directory of OpenVLA, OpenVLA-OFT or μVLA, or a run of this project"
ADAPTER_CONFIG, ADAPTER_FOLDER = "adapter_config.json", "lora_adapter"
OPENVLA = "openvla/openvla-7b"
MERGE = (
    "python vla-scripts/merge_lora_weights_and_save.py --base_checkpoint {base} --lora_finetuned_checkpoint_dir {path}"
)
CONVERT = "convert it with vla-scripts/extern/convert_openvla_weights_to_hf.py of the OpenVLA repository"
BESIDE_CONFIG = "put config.json of the same run beside it, or into the folder above `checkpoints`"
NOT_READ = "choose a directory of OpenVLA-OFT or μVLA: this project does not read {name}"
# Modules of a Prismatic training file, by which its kind is recognised.
MEMORY_BANKS = {"cog_mem_bank", "per_mem_bank"}
PRISMATIC = {"vision_backbone", "llm_backbone", "projector"}
OTHER_FILES = {
    "saved_model.pb": "TensorFlow SavedModel",
    "params.pax": "PaxML",
    "checkpoint.msgpack": "Flax",
    "_METADATA": "Orbax",
    "model_index.json": "diffusers",
}
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
SUFFIXES = {".gguf": "GGUF", ".onnx": "ONNX", ".engine": "TensorRT", ".mlmodel": "Core ML"}


@dataclass(frozen=True)
class Recognised:
    """The content of a path that is no released directory."""

    got: str
    remedy: str


def require_recognised(path: Path) -> None:
    """Raises MuvlaError if the folder holds something else than a released directory, named by its content."""
    if recognised := recognise(path):
        raise MuvlaError(str(path), got=recognised.got, expected=EXPECTED, remedy=recognised.remedy)
    if not (path / CONFIG).exists():
        raise MuvlaError(
            str(path / CONFIG),
            got="no such file" if path.exists() else "no such folder",
            expected=EXPECTED,
            remedy="name the folder that holds config.json, or owner/name of the Hub",
        )


def recognise(path: Path) -> Recognised | None:
    """Returns what the folder or file is; None for a released directory and for content without a name."""
    if path.is_file():
        return _recognise_file(path)
    if not path.is_dir():
        return None
    config = _peek(path / CONFIG)
    openvla = isinstance(config, dict) and config.get("model_type") == "openvla"
    weights = (path / INDEX).exists() or (path / WEIGHTS).exists()
    if not weights and (adapter := _find_adapter(path)):
        return _unmerged(path, adapter)
    unreadable = config is None and (path / CONFIG).exists()  # its reader names the damage
    return None if openvla or unreadable else _recognise_folder(path, config)


def _find_adapter(path: Path) -> Path | None:
    """Returns the folder of peft's adapter: `lora_adapter`, or the directory itself."""
    for folder in (path / ADAPTER_FOLDER, path):
        if (folder / ADAPTER_CONFIG).exists() or any(folder.glob("adapter_model.*")):
            return folder
    return path / ADAPTER_FOLDER if (path / ADAPTER_FOLDER).is_dir() else None


def _unmerged(path: Path, adapter: Path) -> Recognised:
    config = _peek(adapter / ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    base = base if isinstance(base, str) and base else OPENVLA
    command = MERGE.format(base=base, path=path)
    return Recognised(
        f"LoRA adapters that are not merged into their base, {base}",
        f"merge them in the OpenVLA-OFT repository: `{command}`",
    )


def _recognise_folder(path: Path, config: Any) -> Recognised | None:
    fields = config.keys() if isinstance(config, dict) else set()
    if (path / "meta" / "info.json").exists():
        return Recognised("a LeRobot dataset, no policy", "import it with `muvla data import`")
    if "type" in fields and fields & {"input_features", "output_features", "normalization_mapping", "chunk_size"}:
        name = f"a LeRobot policy ({config['type']})"
        return Recognised(name, NOT_READ.format(name="LeRobot's policies"))
    if "vla" in fields or "base_vlm" in fields or any((path / "checkpoints").glob("step-*.pt")):
        return Recognised(
            "a training folder of Prismatic (OpenVLA, CogACT, MemoryVLA), not converted",
            f"for OpenVLA, {CONVERT}; of CogACT, MemoryVLA and CronusVLA fetch checkpoints/step-….pt, too",
        )
    if any("dexbotic" in str(config.get(name)).lower() for name in ("model_type", "architectures") if fields):
        return _dexbotic(config)
    if (path / "run.json").exists() or (path / "checkpoint.json").exists():
        return Recognised(
            "a training of this project",
            "pass its train id, or write the published layout first with `muvla export`",
        )
    for name, form in OTHER_FILES.items():
        if (path / name).exists():
            return Recognised(f"a checkpoint of {form}", NOT_READ.format(name=form))
    for file in sorted(path.iterdir()):
        foreign = file.suffix.lower() in SUFFIXES or (not fields and file.suffix in PICKLES)
        if foreign and file.is_file() and file.name.split("--")[0] not in PARTS.values():
            content = _recognise_file(file)
            return Recognised(f"{file.name}: {content.got}", content.remedy)
    if not fields and any(path.glob("*--*_checkpoint.pt")) and (path / STATISTICS).exists():
        return Recognised(
            "parts of OpenVLA-OFT without config.json and without weights",
            "fetch config.json, tokenizer.json and model*.safetensors of the same repository into this folder",
        )
    return None


def _dexbotic(config: dict[str, Any]) -> Recognised:
    language = config.get("llm_config")
    model = language.get("model_type") if isinstance(language, dict) else None
    return Recognised(
        f"a checkpoint of Dexbotic, with the language model {model or 'of its base'}",
        "choose a training of MemoryVLA's first code, whose language model is Llama 2",
    )


def _recognise_file(path: Path) -> Recognised:
    """Returns what a single file is; only a folder is a checkpoint."""
    if placeholder := find_placeholder(path):
        return Recognised(placeholder.description, placeholder.remedy)
    if (path.parent / CONFIG).exists() and (path.suffix in (".safetensors", ".json") or "--" in path.name):
        return Recognised("a file of a released directory", f"pass its folder, {path.parent}")
    form = describe_format(path) or SUFFIXES.get(path.suffix.lower())
    if form in (None, "an empty file"):
        return Recognised("a file", "pass the folder that holds config.json")
    if form in ("a file of torch.save", "a pickle"):
        return _recognise_pickle(path, form)
    return Recognised(form, NOT_READ.format(name=form))


def _recognise_pickle(path: Path, form: str) -> Recognised:
    import torch

    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # torch has an error class each for a cut archive, code in a pickle, and no pickle
        return Recognised(f"{form} that is no plain dictionary of tensors", NOT_READ.format(name="such a file"))
    model = content.get("model") if isinstance(content, dict) else None
    modules = {str(name) for name in model} if isinstance(model, dict) else set()
    if modules & MEMORY_BANKS:
        return Recognised("a checkpoint of MemoryVLA", BESIDE_CONFIG)
    if "action_model" in modules and modules >= PRISMATIC:
        return Recognised("a checkpoint of CogACT or CronusVLA", BESIDE_CONFIG)
    if modules >= PRISMATIC or modules >= {"llm_backbone", "projector"}:
        return Recognised("a checkpoint of Prismatic or OpenVLA, not converted", CONVERT)
    return Recognised(form, "pass the folder that holds config.json: a single file of tensors names no architecture")


def _peek(path: Path) -> Any:
    """Returns the JSON in the file; None for a file that is missing or no JSON, which its reader reports."""
    try:
        return read_json(path)
    except MuvlaError:
        return None
