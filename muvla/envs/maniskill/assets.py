"""The scenes and the robot of SimplerEnv's Bridge twins, which ManiSkill's package does not contain."""

from __future__ import annotations

from pathlib import Path

from muvla.envs.assets import AssetSet, archive_from_hub, archive_from_web

_TWINS, _WIDOWX = "data/tasks/bridge_v2_real2sim_dataset", "data/robots/widowx"


def _fetch(folder: Path) -> str:
    """Fetch both archives as ManiSkill 3.0.1 does. ManiSkill records a digest of the first one only."""
    twins = archive_from_hub(
        "haosulab/ManiSkill_bridge_v2_real2sim",
        "bridge_v2_real2sim_dataset.zip",
        "618512a205b4528cafecdad14b1788ed1130879f3064deb406516ed5b9c5ba92",
        (folder / _TWINS).parent,
        Path(_TWINS).name,
    )
    robot = archive_from_web(
        "https://github.com/haosulab/ManiSkill-WidowX250S/archive/refs/tags/v0.2.0.zip",
        (folder / _WIDOWX).parent,
        Path(_WIDOWX).name,
    )
    return f"{twins}; {robot}"


BRIDGE = AssetSet(
    name="bridge",
    what="the scenes and objects of SimplerEnv's Bridge twins, and the WidowX robot (whose archive is pinned by its "
    "tag alone, v0.2.0: its digest is not published)",
    variable="MS_ASSET_DIR",
    usual=lambda: Path.home() / ".maniskill",
    parts=(f"{_TWINS}/custom", f"{_TWINS}/real_inpainting", f"{_TWINS}/stages", f"{_WIDOWX}/wx250s.urdf", _WIDOWX),
    stand_ins=lambda folder, hashes: (),
    fetch=_fetch,
    manifest=f"{_WIDOWX.rpartition('/')[0]}/muvla-manifest.json",  # beside the robot's folder, all of which is hashed
)
