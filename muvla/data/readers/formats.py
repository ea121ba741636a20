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

To add a format, write a file with a class of the interface `Source` (`muvla.data.readers.source`) and a `Format`
(`muvla.data.readers.format`), and add one line to FORMATS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from muvla.data.readers import maniskill, mikasa, robomimic, robomme
from muvla.data.readers.format import Format, by_name
from muvla.data.readers.hdf5 import get_names, is_hdf5
from muvla.data.readers.lerobot import ABOUT, INSTRUCTION, LeRobotDirectory
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Source, read_note
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.errors import MuvlaError, unknown_name
from muvla.utils.content import describe_format

# MIKASA (μVLA spec 4.4): proprio is xyz, roll-pitch-yaw and the sum of the finger positions, as in the environment.
# LIBERO (spec 4.5): proprio is position, axis-angle and the two finger positions; RLDS images are turned by 180°.
# muvla: written by `muvla data write`; MIKASA's layout with any sizes, and the columns that MIKASA lacks.
RLDS_CAMERAS = ("steps/observation/image", "steps/observation/wrist_image")
RLDS_MIKASA = Schema(
    name="mikasa",
    cameras=RLDS_CAMERAS,
    proprio=("steps/observation/proprio",),
    proprio_dim=7,
    action=("steps/action",),
    action_dim=7,
    instruction="steps/language_instruction",
)
RLDS_LIBERO = replace(
    RLDS_MIKASA,
    name="libero",
    proprio=("steps/observation/state",),
    proprio_dim=8,
    turn_gripper=True,
    pass_through=(6,),
    conventions=Conventions(gripper="positive_opens"),
)
# Bridge V2 and Fractal as the published trainings read them (`muvla.data.readers.standards`). Not checked against a
# published file.
RLDS_BRIDGE = Schema(
    name="bridge",
    cameras=("steps/observation/image_0",),
    proprio=("steps/observation/state",),
    proprio_dim=7,
    action=("steps/action",),
    action_dim=7,
    instruction="steps/language_instruction",
    standard="bridge",
    pass_through=(6,),
    conventions=Conventions(action="delta", gripper="positive_opens", units="metric", fps=5),
)
RLDS_FRACTAL = Schema(
    name="fractal",
    cameras=("steps/observation/image",),
    proprio=("steps/observation/base_pose_tool_reached", "steps/observation/gripper_closed"),
    proprio_dim=8,
    action=("steps/action/world_vector", "steps/action/rotation_delta", "steps/action/gripper_closedness_action"),
    action_dim=7,
    instruction="steps/observation/natural_language_instruction",
    standard="fractal",
    pass_through=(6,),
    conventions=Conventions(action="delta", gripper="positive_opens", units="metric", fps=3),
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
    proprio=("observation.state",),
    proprio_dim=7,
    action=("action",),
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
FORMATS: dict[str, Format] = {
    "rlds": Format(
        layout="the folder of one version of an RLDS dataset (DIRECTORY/1.0.0)",
        matches=lambda path: any((path / name).exists() for name in ("features.json", "dataset_info.json")),
        open=RldsDirectory,
        schemas=by_name(RLDS_MIKASA, RLDS_LIBERO, RLDS_BRIDGE, RLDS_FRACTAL, RLDS_MUVLA),
    ),
    "lerobot": Format(
        layout="a folder with meta/info.json (LeRobot)",
        matches=lambda path: (path / "meta" / "info.json").exists(),
        open=LeRobotDirectory,
        schemas=by_name(LEROBOT_MIKASA, LEROBOT_LIBERO, LEROBOT_MUVLA),
    ),
    "mikasa": mikasa.FORMAT,
    "maniskill": maniskill.FORMAT,
    "robomimic": robomimic.FORMAT,
    "robomme": robomme.FORMAT,
}
PUBLISHED = {"libero": RLDS_LIBERO, "bridge": RLDS_BRIDGE, "fractal": RLDS_FRACTAL}  # by the beginning of a key
LISTED = 200  # entries of a folder in which a dataset is searched


def published_conventions(key: str) -> Conventions:
    """Returns the conventions of a published dataset by its key in a release's statistics; nothing for another key."""
    fitting = [schema.conventions for name, schema in PUBLISHED.items() if key.startswith(name)]
    return fitting[0] if fitting else NOTHING_STATED


def detect_format(path: Path) -> str:
    """Returns the name of the format at `path`. Raises MuvlaError, with the content of `path`, if no format matches."""
    matching = [name for name, format in FORMATS.items() if format.matches(path)]
    if matching:
        return matching[0]
    got, remedy = _diagnose(path)
    raise MuvlaError(
        "PATH", got=got, expected="; or ".join(format.layout for format in FORMATS.values()), remedy=remedy
    )


def _diagnose(path: Path) -> tuple[str, str]:
    """Returns what lies at a path that holds no dataset, and a remedy."""
    if not path.exists():
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        return f"{path}, which does not exist", f"run `ls {parent}`, the nearest folder that exists"
    if path.is_file():
        content = describe_format(path) or "a file of an unknown format"
        if is_hdf5(path):
            names = get_names(path)
            content = f"HDF5 with {', '.join(names[:8]) or 'nothing'} in it"
        return f"{path}, {content}", "convert the file to one of these formats"
    inside = _datasets_below(path)
    if inside:
        return f"{path}, a folder above {inside[0]}", f"pass {inside[0]}"
    names = sorted(child.name for child in path.iterdir())[:8]
    return (
        f"{path}, a folder with {', '.join(names) or 'nothing'} in it",
        "pass the path of a dataset in one of these formats",
    )


def _datasets_below(path: Path) -> list[Path]:
    """Returns the datasets one or two folders below, at most LISTED entries of a folder."""
    children = sorted(path.iterdir())[:LISTED]
    below = [*children, *(inner for child in children if child.is_dir() for inner in sorted(child.iterdir())[:LISTED])]
    return [child for child in below if any(format.matches(child) for format in FORMATS.values())]


def open_source(path: Path, format: str | None = None) -> Source:
    """Opens a published dataset.

    Args:
        path: file or folder of the dataset.
        format: a key of FORMATS; detected by default.

    Raises:
        MuvlaError: the dataset cannot be opened, or has another format.
    """
    if format is not None and format not in FORMATS:
        raise unknown_name("--format", format, FORMATS)
    if not path.exists():
        detect_format(path)
    if format is not None and not FORMATS[format].matches(path):
        detected = detect_format(path)
        raise MuvlaError(
            "--format",
            got=format,
            expected=f"{detected}, as {path} is {FORMATS[detected].layout}",
            remedy=f"pass --format {detected}, or omit --format",
        )
    return FORMATS[format or detect_format(path)].open(path)


def choose_schema(
    source: Source,
    name: str | None = None,
    cameras: Sequence[str] = (),
    proprio: Sequence[str] = (),
    action: Sequence[str] = (),
    instruction: str | None = None,
    text: str | None = None,
) -> Schema:
    """Returns a schema of the source's format, with the user's features in place of the schema's.

    Args:
        source: the opened dataset.
        name: name of the schema; may be None if the format has a single schema, or if the files suggest one.
        cameras: features with images, any size; the schema's without any.
        proprio: features with the robot's state, joined in this order, any length.
        action: features with the command, joined in this order, any length.
        instruction: feature with the task's sentence.
        text: the task's sentence itself, for all episodes.

    Raises:
        MuvlaError: the format has no schema of this name, or several schemas and none is named; or a feature is named
            twice.
    """
    schema = _get_schema(source, name)
    for option, features in (("--camera", cameras), ("--proprio", proprio), ("--action", action)):
        if twice := next((feature for feature in features if list(features).count(feature) > 1), None):
            raise MuvlaError(option, got=f"{twice} twice", expected="every feature once", remedy="name it once")
    if text is not None and instruction is not None:
        raise MuvlaError(
            "--instruction",
            got="--instruction and --instruction-feature",
            expected="the sentence, or the feature that holds it",
            remedy="omit one of both",
        )
    if text is not None and not text.strip():
        raise MuvlaError("--instruction", got=text, expected="a sentence", remedy="pass the task's sentence")
    if not cameras and not schema.cameras:
        schema = replace(schema, cameras=source.cameras)
    changes = {"cameras": tuple(cameras)} if cameras else {}
    changes |= {"proprio": tuple(proprio)} if proprio else {}
    changes |= {"action": tuple(action)} if action else {}
    changes |= {"instruction": instruction} if instruction else {}
    if not changes and text is None:
        return schema
    joined = {key: " + ".join(value) for key, value in changes.items() if key in ("proprio", "action")}
    named = ", ".join(f"{key} {value}" for key, value in (changes | joined).items())
    sizes = {f"{key}_dim": None for key in ("proprio", "action") if key in changes}
    if action:  # the schema's conventions are those of its action; a gripper that the schema turns is turned still
        sizes["conventions"] = Conventions(gripper=schema.conventions.gripper if schema.turn_gripper else None)
    new_name = f"{schema.name} with {named}" if changes else schema.name
    return replace(schema, **changes, **sizes, text=text and text.strip(), name=new_name)


def _get_schema(source: Source, name: str | None) -> Schema:
    format = FORMATS[source.format]
    name = name or format.suggest(source)
    if name is None and len(format.schemas) > 1:
        raise MuvlaError(
            "--schema",
            got=None,
            expected=f"one of {', '.join(format.schemas)}, for the format {source.format}",
            remedy="pass --schema with the robot that the dataset was recorded on",
        )
    name = name or next(iter(format.schemas))
    if name not in format.schemas:
        raise unknown_name("--schema", name, format.schemas)
    schema = format.schemas[name]
    if (note := read_note(source.path)) is not None:  # the dataset was written by `muvla data write`
        schema = replace(schema, pass_through=note.pass_through)
    return schema
