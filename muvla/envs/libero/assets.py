"""LIBERO's scenes, objects and textures, which its package does not contain."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from muvla.envs.assets import AssetSet, from_hub

# SHA-256 of the stand-ins in this project's test data: a box, a flat texture and a room, for the eye alone.
_STAND_INS = frozenset(
    {
        "d55cf70d42d6cc643f00e4ad71f258498abf38c75e8a0a79cd0de086cdd1c4df",
        "3af63633584ea81c24a926870191880a70f40c18a3231b622fd0ce95529b629e",
        "83beb2bfbfa7de105ea6609a9ba2c9d1d750f426dd8a4932564805c3e95c92c9",
    }
)
LIBERO = AssetSet(
    name="libero",
    what="LIBERO's scenes, objects and textures (0.2 GB)",
    variable="MUVLA_LIBERO_ASSETS",
    usual=lambda: Path.home() / ".cache" / "libero" / "assets",  # hf-libero downloads them to the same folder
    parts=(
        "articulated_objects",
        "scenes",
        "stable_hope_objects",
        "stable_scanned_objects",
        "textures",
        "turbosquid_objects",
    ),
    stand_ins=lambda folder, hashes: tuple(name for name, digest in hashes.items() if digest in _STAND_INS),
    fetch=partial(from_hub, "lerobot/libero-assets"),
)
