"""Assets that the suite's tasks load and that neither the suite nor ManiSkill contains: a mug and a light bulb."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from muvla.envs.assets import AssetSet, archive_from_hub
from muvla.errors import MuvlaError

MUG = "025_mug"
BULB = "low_poly_light_bulb.glb"
STAND_IN = "stand_in"  # a key that ManiSkill ignores; this project writes it into the files of its stand-ins
_YCB = "data/assets/mani_skill2_ycb"


def _labelled_models(folder: Path, hashes: Mapping[str, str]) -> tuple[str, ...]:
    path = folder / _YCB / "info_pick_v0.json"
    try:
        models = json.loads(path.read_text(encoding="utf-8"))
        return tuple(name for name, model in models.items() if model.get(STAND_IN))
    except (ValueError, AttributeError) as error:  # no JSON, or no table of models
        raise MuvlaError(
            str(path), got=str(error), expected="ManiSkill's list of models", remedy=SHELLGAME.remedy
        ) from error


SHELLGAME = AssetSet(
    name="shellgame",
    what=f"YCB's {MUG}, which MIKASA-Robo's ShellGame tasks load (among YCB's models, 0.2 GB)",
    variable="MS_ASSET_DIR",  # ManiSkill reads this variable when it is imported
    usual=lambda: Path.home() / ".maniskill",
    # The last part is the folder: it holds further files, for example the texture.
    parts=(
        f"{_YCB}/info_pick_v0.json",
        f"{_YCB}/models/{MUG}/collision.ply",
        f"{_YCB}/models/{MUG}/textured.obj",
        f"{_YCB}/models/{MUG}",
    ),
    stand_ins=_labelled_models,
    # ManiSkill 3.0.1 fetches the same archive and checks the same digest.
    fetch=lambda folder: archive_from_hub(
        "haosulab/ManiSkill2",
        "data/mani_skill2_ycb.zip",
        "1551724fd1ac7bad9807ebcf46dd4a788caed5c9499c1225b9bfa080ffbefcb3",
        folder / "data" / "assets",
    ),
    manifest=f"{_YCB}/muvla-manifest.json",
)


def _refuse_to_fetch(folder: Path) -> str:
    raise MuvlaError(
        "assets lamp",
        got="no place to fetch it from",
        expected=BULB,
        remedy=f"copy {BULB} of the suite's authors into {folder}: their package does not hold it",
    )


LAMP = AssetSet(
    name="lamp",
    what=f"{BULB}, which MIKASA-Robo's BlinkCountButtonPress, TimedTransfer and ColorLamp tasks load",
    variable="MUVLA_MIKASA_LAMP",
    usual=lambda: Path.home() / ".cache" / "muvla" / "mikasa-lamp",
    parts=(BULB,),
    stand_ins=lambda folder, hashes: (BULB,) if STAND_IN.encode() in (folder / BULB).read_bytes()[:200] else (),
    fetch=_refuse_to_fetch,
)
