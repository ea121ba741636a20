"""`preprocessor_config.json`: the constants by which the published processor normalises pixels.

The processor computes its numbers from `means` and `stds`, and `tvf_normalize_params` then replaces them. OpenVLA's
converter wrote the latter in bfloat16, so they differ from the former.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from muvla.checkpoints.fields import FieldStatus, Irrelevant, Used, equal_to, is_number, judge
from muvla.models.constants import TEXTBOOK_MEAN, TEXTBOOK_STD, Channels, Constants

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "PrismaticImageProcessor"
TOWERS = ("dino", "siglip")
AT_SIZE = Irrelevant("frames have the model's size before the processor sees them, so that it changes none")
LIBRARY = Irrelevant("a record of the library that wrote the file")
STD_RANGE, MEAN_RANGE = (1e-6, 1e6), (-1e6, 1e6)


def judge_preprocessor(data: Mapping[str, Any], image_size: int) -> Iterator[FieldStatus]:
    """Yields the status of every field. `image_size` is the model's, in pixels."""
    side = image_size
    replaced = Irrelevant("tvf_normalize_params replaces it")
    stored = "tvf_normalize_params" in data
    rules = {
        "image_processor_type": equal_to(PROCESSOR),
        "use_fused_vision_backbone": equal_to(True),
        "input_sizes": equal_to([[3, side, side], [3, side, side]]),
        "tvf_normalize_params": Used(_normalises, "mean and std of three channels for both towers"),
        "tvf_resize_params": Used(
            lambda value: _sized(value, "size", side, {"interpolation", "max_size", "antialias"}),
            f"a size of {side} pixels for both towers",
        ),
        "tvf_crop_params": Used(
            lambda value: _sized(value, "output_size", side, set()), f"a size of {side} pixels for both towers"
        ),
        "means": replaced if stored else Used(lambda value: _pair(value, MEAN_RANGE), "three numbers for both towers"),
        "stds": replaced if stored else Used(lambda value: _pair(value, STD_RANGE), "three numbers for both towers"),
        "image_resize_strategy": AT_SIZE,
        "interpolations": AT_SIZE,
        "tvf_do_letterbox": AT_SIZE,
        "tvf_letterbox_fill": AT_SIZE,
        "processor_class": LIBRARY,
        "auto_map": LIBRARY,
        "_name_or_path": LIBRARY,
        "transformers_version": LIBRARY,
        "feature_extractor_type": LIBRARY,
    }
    yield from judge(PREPROCESSOR, data, rules)


def read_normalisation(data: Mapping[str, Any]) -> dict[str, Channels]:
    """Returns the stored fields of `Constants`, in the precision that the processor computes in; refused ones are
    left out."""
    params = data.get("tvf_normalize_params")
    if _normalises(params):
        means, stds = ([entry[name] for entry in params] for name in ("mean", "std"))
    else:
        means, stds = data.get("means"), data.get("stds")
        if "tvf_normalize_params" in data or not (_pair(means, MEAN_RANGE) and _pair(stds, STD_RANGE)):
            return {}
    default = Constants()
    read: dict[str, Channels] = {}
    for tower, mean, std in zip(TOWERS, means, stds, strict=True):
        for name, values in ((f"{tower}_mean", mean), (f"{tower}_std", std)):
            usual = getattr(default, name)
            read[name] = usual if _in_float32(values) == _in_float32(usual) else tuple(map(float, values))
    return read


def make_preprocessor_config(constants: Constants, image_size: int) -> dict[str, Any]:
    """Returns the file's content for a policy with these constants, in the published fields."""
    side = [image_size, image_size]
    normalise = [
        {"mean": list(mean), "std": list(std), "inplace": False}
        for mean, std in (
            (constants.dino_mean, constants.dino_std),
            (constants.siglip_mean, constants.siglip_std),
        )
    ]
    resize = {"size": side, "interpolation": 3, "max_size": None, "antialias": True}
    return {
        "image_processor_type": PROCESSOR,
        "processor_class": "PrismaticProcessor",
        "use_fused_vision_backbone": True,
        "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, *side], [3, *side]],
        "interpolations": ["bicubic", "bicubic"],
        "means": [list(TEXTBOOK_MEAN), [0.5, 0.5, 0.5]],
        "stds": [list(TEXTBOOK_STD), [0.5, 0.5, 0.5]],
        "tvf_resize_params": [resize, resize],
        "tvf_crop_params": [{"output_size": side}, {"output_size": side}],
        "tvf_normalize_params": normalise,
        "tvf_do_letterbox": False,
        "tvf_letterbox_fill": None,
    }


def _in_float32(values: Any) -> bytes:
    return struct.pack("3f", *values)


def _channels(value: Any, bounds: tuple[float, float]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_number(x, *bounds) for x in value)


def _pair(value: Any, bounds: tuple[float, float]) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_channels(x, bounds) for x in value)


def _entries(value: Any, needed: set[str], allowed: set[str]) -> bool:
    """True for two objects, one a tower, with these fields."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(x, dict) and needed <= x.keys() <= needed | allowed for x in value)
    )


def _normalises(value: Any) -> bool:
    return _entries(value, {"mean", "std"}, {"inplace"}) and all(
        _channels(x["mean"], MEAN_RANGE) and _channels(x["std"], STD_RANGE) for x in value
    )


def _sized(value: Any, name: str, side: int, allowed: set[str]) -> bool:
    return _entries(value, {name}, allowed) and all(x[name] in (side, [side], [side, side]) for x in value)
