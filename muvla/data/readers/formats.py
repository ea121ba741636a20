"""The formats that can be imported, and the schemas of their published datasets.

To import your own dataset in one of these formats, no code is needed: name its features with `--camera`, `--proprio`
and `--action`. To add a schema of your own, copy one of the schemas below and change:

- `name`: the word for `--schema`.
- `cameras`: features with images (h, w, 3), the base camera first. The policy gets its images in this order.
- `proprio`, `proprio_dim`: feature with the robot's state, and its length; None accepts any length. Evaluation needs
  the proprio of the environment.
- `action`, `action_dim`: feature with the executed command, and its length.
- `instruction`: feature with the task's sentence.
- `turn_gripper`: True if the last action dimension is -1 for open and 1 for closed; training uses 1 for open and 0
  for closed.
- `pass_through`: action dimensions that normalisation leaves unscaled, for example a binary gripper.

To add a format, write a class with the interface `Source` (`muvla.data.readers.source`) and add a `Format` to FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from muvla.data.readers import maniskill, mikasa
from muvla.data.readers.lerobot import ABOUT, INSTRUCTION, LeRobotDirectory
from muvla.data.readers.maniskill import ManiSkillFile
from muvla.data.readers.mikasa import MikasaDirectory
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Source, read_note
from muvla.envs.conventions import Conventions
from muvla.errors import MuvlaError, unknown_name


@dataclass(frozen=True)
class Format:
    """A format of published demonstrations."""

    layout: str  # the files, for errors
    matches: Callable[[Path], bool]  # True if a path holds this format
    open: Callable[..., Source]  # opens a path; with `needs_instruction`, a path and the instruction
    schemas: dict[str, Schema]  # by the name for `--schema`
    needs_instruction: bool = False  # the files hold no text


def _by_name(*schemas: Schema) -> dict[str, Schema]:
    return {schema.name: schema for schema in schemas}


# MIKASA (μVLA spec 4.4): proprio is xyz, roll-pitch-yaw and the sum of the finger positions, as in the environment.
# LIBERO (spec 4.5): proprio is position, axis-angle and the two finger positions; RLDS images are turned by 180°.
# muvla: written by `muvla data write`; MIKASA's layout with any sizes, and the columns that MIKASA lacks.
RLDS_CAMERAS = ("steps/observation/image", "steps/observation/wrist_image")
RLDS_MIKASA = Schema(
    name="mikasa",
    cameras=RLDS_CAMERAS,
    proprio="steps/observation/proprio",
    proprio_dim=7,
    action="steps/action",
    action_dim=7,
    instruction="steps/language_instruction",
)
RLDS_LIBERO = replace(
    RLDS_MIKASA,
    name="libero",
    proprio="steps/observation/state",
    proprio_dim=8,
    turn_gripper=True,
    pass_through=(6,),
    conventions=Conventions(gripper="positive_opens"),
)
RLDS_MUVLA = replace(
    RLDS_MIKASA,
    name="muvla",
    proprio_dim=None,
    action_dim=None,
    executed="steps/executed_action",
    phase="steps/phase",
    about="episode_metadata/about",
)
LEROBOT_MIKASA = Schema(
    name="mikasa",
    cameras=("observation.images.top", "observation.images.wrist"),
    proprio="observation.state",
    proprio_dim=7,
    action="action",
    action_dim=7,
    instruction=INSTRUCTION,
)
# Not checked against a published file: conversions copy LIBERO's commands, -1 open and 1 closed, as RLDS has them.
LEROBOT_LIBERO = replace(
    LEROBOT_MIKASA,
    name="libero",
    cameras=("observation.images.image", "observation.images.image2"),
    proprio_dim=8,
    turn_gripper=True,
    pass_through=(6,),
    conventions=Conventions(gripper="positive_opens"),
)
LEROBOT_MUVLA = replace(
    LEROBOT_MIKASA,
    name="muvla",
    proprio_dim=None,
    action_dim=None,
    executed="executed_action",
    phase="phase",
    about=ABOUT,
)
MIKASA_NPZ = Schema(
    name="mikasa",
    cameras=(mikasa.BASE, mikasa.WRIST),
    proprio="proprio",
    proprio_dim=7,
    action="action",
    action_dim=7,
    instruction="language_instruction",
)
MANISKILL = Schema(
    name="maniskill",
    cameras=(),  # all cameras of the file
    proprio="agent/qpos",
    proprio_dim=None,
    action=maniskill.ACTIONS,
    action_dim=None,
    instruction=maniskill.INSTRUCTION,
)

FORMATS: dict[str, Format] = {
    "rlds": Format(
        layout="the folder of one version of an RLDS dataset (DIRECTORY/1.0.0)",
        matches=lambda path: any((path / name).exists() for name in ("features.json", "dataset_info.json")),
        open=RldsDirectory,
        schemas=_by_name(RLDS_MIKASA, RLDS_LIBERO, RLDS_MUVLA),
    ),
    "lerobot": Format(
        layout="a folder with meta/info.json (LeRobot)",
        matches=lambda path: (path / "meta" / "info.json").exists(),
        open=LeRobotDirectory,
        schemas=_by_name(LEROBOT_MIKASA, LEROBOT_LIBERO, LEROBOT_MUVLA),
    ),
    "mikasa": Format(
        layout="a folder with train_data_*.npz (MIKASA-Robo)",
        matches=lambda path: any(path.glob("train_data_*.npz")),
        open=MikasaDirectory,
        schemas=_by_name(MIKASA_NPZ),
    ),
    "maniskill": Format(
        layout="an .h5 file (ManiSkill)",
        matches=lambda path: path.suffix == ".h5" and path.is_file(),
        open=ManiSkillFile,
        schemas=_by_name(MANISKILL),
        needs_instruction=True,
    ),
}


def detect_format(path: Path) -> str:
    """Returns the name of the format at `path`. Raises MuvlaError if no format matches."""
    matching = [name for name in ("maniskill", "lerobot", "rlds", "mikasa") if FORMATS[name].matches(path)]
    if matching:
        return matching[0]
    raise MuvlaError(
        "PATH",
        got=f"{path}, " + (f"none of the formats {', '.join(FORMATS)}" if path.exists() else "which does not exist"),
        expected="; or ".join(format.layout for format in FORMATS.values()),
        remedy="pass the path of the dataset, not of a folder above it; or name the format with --format",
    )


def open_source(path: Path, format: str | None = None, instruction: str | None = None) -> Source:
    """Opens a published dataset.

    Args:
        path: file or folder of the dataset.
        format: a key of FORMATS; detected by default.
        instruction: the task's sentence, for formats without text.

    Raises:
        MuvlaError: the dataset cannot be opened, or an instruction is missing or superfluous.
    """
    name = format or detect_format(path)
    if name not in FORMATS:
        raise unknown_name("--format", name, FORMATS)
    chosen = FORMATS[name]
    if chosen.needs_instruction:
        return chosen.open(path, instruction)
    if instruction is not None:
        raise MuvlaError(
            "--instruction",
            got=instruction,
            expected=f"no instruction: {name} files hold the instructions",
            remedy="omit --instruction",
        )
    return chosen.open(path)


def choose_schema(
    source: Source,
    name: str | None = None,
    cameras: list[str] | None = None,
    proprio: str | None = None,
    action: str | None = None,
) -> Schema:
    """Returns a schema of the source's format, with the user's features in place of the schema's.

    Args:
        source: the opened dataset.
        name: name of the schema; may be None if the format has a single schema.
        cameras: features with images, any size.
        proprio: feature with the robot's state, any length.
        action: feature with the command, any length.

    Raises:
        MuvlaError: the format has no schema of this name, or several schemas and `name` is None.
    """
    schemas = FORMATS[source.format].schemas
    if name is None and len(schemas) > 1:
        raise MuvlaError(
            "--schema",
            got=None,
            expected=f"one of {', '.join(schemas)}, for the format {source.format}",
            remedy="pass --schema with the robot that the dataset was recorded on",
        )
    name = name or next(iter(schemas))
    if name not in schemas:
        raise unknown_name("--schema", name, schemas)
    schema = schemas[name]
    if (note := read_note(source.path)) is not None:  # the dataset was written by `muvla data write`
        schema = replace(schema, pass_through=note.pass_through)
    if not schema.cameras:
        schema = replace(schema, cameras=source.cameras)
    changes = {"cameras": tuple(cameras)} if cameras else {}
    changes |= {"proprio": proprio, "proprio_dim": None} if proprio else {}
    changes |= {"action": action, "action_dim": None} if action else {}
    if not changes:
        return schema
    named = ", ".join(f"{key} {value}" for key, value in changes.items() if value is not None)
    return replace(schema, **changes, name=f"{schema.name} with {named}")
