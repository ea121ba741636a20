"""The formats that can be imported, how one is told from another, and their schemas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from muvla.data.readers import maniskill, mikasa
from muvla.data.readers.lerobot import ABOUT, INSTRUCTION, LeRobotDirectory
from muvla.data.readers.maniskill import ManiSkillFile
from muvla.data.readers.mikasa import MikasaDirectory
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import NOTE, Source
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

_RLDS = ("steps/observation/image", "steps/observation/wrist_image")
_RLDS_TEXT = "steps/language_instruction"
_STATE = "observation.state"
_MIKASA_LEROBOT = ("observation.images.top", "observation.images.wrist")
_LIBERO_LEROBOT = ("observation.images.image", "observation.images.image2")

# By format and name. μVLA spec 4.4: MIKASA's proprio is xyz, roll-pitch-yaw and the sum of the finger positions, as in
# the environment here. Spec 4.5: LIBERO's state is position, axis-angle and the two finger positions, and its RLDS
# images are turned by 180° already. `muvla` is what `muvla data write` makes: MIKASA's layout of any size, and more.
SCHEMAS = {
    ("rlds", "mikasa"): Schema("mikasa", _RLDS, "steps/observation/proprio", 7, "steps/action", 7, _RLDS_TEXT),
    ("rlds", "libero"): Schema(
        "libero",
        _RLDS,
        "steps/observation/state",
        8,
        "steps/action",
        7,
        _RLDS_TEXT,
        turn_gripper=True,
        pass_through=(6,),
    ),
    ("rlds", "muvla"): Schema(
        "muvla",
        _RLDS,
        "steps/observation/proprio",
        None,
        "steps/action",
        None,
        _RLDS_TEXT,
        executed="steps/executed_action",
        phase="steps/phase",
        about="episode_metadata/about",
    ),
    ("lerobot", "mikasa"): Schema("mikasa", _MIKASA_LEROBOT, _STATE, 7, "action", 7, INSTRUCTION),
    # Not read off a published file: conversions copy LIBERO's own commands, -1 open and 1 closed, as RLDS has them.
    ("lerobot", "libero"): Schema(
        "libero", _LIBERO_LEROBOT, _STATE, 8, "action", 7, INSTRUCTION, turn_gripper=True, pass_through=(6,)
    ),
    ("lerobot", "muvla"): Schema(
        "muvla",
        _MIKASA_LEROBOT,
        _STATE,
        None,
        "action",
        None,
        INSTRUCTION,
        executed="executed_action",
        phase="phase",
        about=ABOUT,
    ),
    ("mikasa", "mikasa"): Schema(
        "mikasa", (mikasa.BASE, mikasa.WRIST), "proprio", 7, "action", 7, "language_instruction"
    ),
    ("maniskill", "maniskill"): Schema(  # all its cameras
        "maniskill", (), "agent/qpos", None, maniskill.ACTIONS, None, maniskill.INSTRUCTION
    ),
}
FORMATS = tuple(dict.fromkeys(format for format, _ in SCHEMAS))


def detected(path: Path) -> str:
    """The format of what lies at `path`. Raises MuvlaError where it is none of them."""
    if path.suffix == ".h5" and path.is_file():
        return "maniskill"
    if (path / "meta" / "info.json").exists():
        return "lerobot"
    if any((path / name).exists() for name in ("features.json", "dataset_info.json")):
        return "rlds"
    if any(path.glob("train_data_*.npz")):
        return "mikasa"
    raise MuvlaError(
        str(path),
        got="none of " + ", ".join(FORMATS) if path.exists() else "nothing",
        expected="the folder of one version (RLDS: DIRECTORY/1.0.0), one with meta/info.json (LeRobot) or "
        "train_data_*.npz (MIKASA-Robo), or an .h5 file (ManiSkill)",
        remedy="correct the path",
    )


def open_source(path: Path, format: str | None = None, instruction: str | None = None) -> Source:
    """What lies at `path`, in the format that it has. Raises MuvlaError where it cannot be opened, and for an
    instruction where the files have theirs."""
    format = format or detected(path)
    if format == "maniskill":
        return ManiSkillFile(path, instruction)
    if instruction is not None:
        raise MuvlaError(
            "--instruction", got=instruction, expected=f"none: {format} files have their own", remedy="leave it out"
        )
    return {"rlds": RldsDirectory, "lerobot": LeRobotDirectory, "mikasa": MikasaDirectory}[format](path)


def schema_of(
    source: Source,
    name: str | None = None,
    cameras: list[str] | None = None,
    proprio: str | None = None,
    action: str | None = None,
) -> Schema:
    """A schema of the source's format, by name where it has several, with the features that the user names in place of
    its own; these may have any size. Raises MuvlaError for an unknown one."""
    format = source.format
    known = [one for of_format, one in SCHEMAS if of_format == format]
    if (format, name or known[0]) not in SCHEMAS or (name is None and len(known) > 1):
        raise MuvlaError(
            "--schema", got=name, expected=f"one of {', '.join(known)}, with {format}", remedy="correct the name"
        )
    found = SCHEMAS[format, name or known[0]]
    if (source.path / NOTE).exists():  # an export from here
        found = replace(found, pass_through=tuple(read_json(source.path / NOTE)["pass_through"]))
    if isinstance(source, ManiSkillFile):
        found = replace(found, cameras=source.cameras)
    named = {"cameras": tuple(cameras)} if cameras else {}
    named |= {"proprio": proprio, "proprio_dim": None} if proprio else {}
    named |= {"action": action, "action_dim": None} if action else {}
    told = ", ".join(f"{key} {value}" for key, value in named.items() if value is not None)
    return replace(found, **named, name=f"{found.name} with {told}") if named else found
