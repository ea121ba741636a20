"""robomimic's HDF5, and LIBERO's demonstrations, which have the same layout.

    data/                          attributes: problem_info (JSON with language_instruction), env_args (JSON)
    data/demo_<i>/actions (T, A)
    data/demo_<i>/obs/<feature> (T, …)    LIBERO: agentview_rgb, eye_in_hand_rgb, ee_states, gripper_states, …

LIBERO stores the simulator's images, which stand on their heads, and the simulator's gripper: -1 opens, 1 closes. The
schema `libero` turns both, so that the episodes equal those of LIBERO's RLDS conversions and of the environment here.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from muvla.data.readers.apart import read_texts
from muvla.data.readers.format import Format, by_name
from muvla.data.readers.hdf5 import find_node, get_names, list_names
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import mismatch
from muvla.data.readers.trajectories import Trajectory, TrajectoryFile
from muvla.envs.conventions import Conventions
from muvla.utils.foreign import parse_json, require_object
from muvla.utils.hdf5 import open_hdf5

DEMO = re.compile(r"demo_(\d{1,9})")
SENTENCE = "language_instruction"
SENTENCES = (SENTENCE, "language", "lang", "instruction", "task_description")  # names of an episode's text
# robosuite's controllers in coordinates of the hand; all others act on joints.
HAND_CONTROLLERS = ("OSC_POSE", "OSC_POSITION", "IK_POSE")


class RobomimicFile(TrajectoryFile):
    """A file of demonstrations. Opening raises MuvlaError for another or damaged file, and a file without episodes."""

    format = "robomimic"

    def __init__(self, path: Path):
        with open_hdf5(path) as file:
            data = find_node(file, "data", str(path))
            names = list_names(data, f"{path}: data")
        numbers = sorted(int(match[1]) for name in names if (match := DEMO.fullmatch(name)))
        if not numbers:
            raise mismatch(
                str(path),
                f"no episode among {', '.join(names[:8]) or 'nothing'} in `data`",
                "groups data/demo_<number>",
                "pass a file with demonstrations; `h5ls FILE/data` lists what this file holds",
            )
        (self.about,) = read_texts(path, ["data"])
        super().__init__(path, [Trajectory(f"data/demo_{number}") for number in numbers])
        self.conventions = self._read_conventions()
        sentence = self._shared_sentence()
        for episode in self.episodes:
            text = next((episode.texts[name] for name in SENTENCES if episode.texts.get(name)), sentence)
            if text is not None:
                episode.texts[SENTENCE] = text
        self._declare_texts()

    @property
    def origin(self) -> str:
        """Names and sizes."""
        return f"{self.name} (robomimic, {len(self)} episodes, {self.path.stat().st_size} bytes)"

    def _json(self, name: str) -> dict[str, Any]:
        """Returns a JSON object among the attributes of `data`, or an empty one."""
        where = f"{self.path}: data.attrs[{name!r}]"
        return require_object(parse_json(self.about[name], where), where) if name in self.about else {}

    def _shared_sentence(self) -> str | None:
        sentence = self._json("problem_info").get(SENTENCE)
        texts = [sentence, *(self.about.get(name) for name in SENTENCES)]
        return next((text for text in texts if isinstance(text, str) and text.strip()), None)

    def _read_conventions(self) -> Conventions:
        """Returns what the arguments of the environment state of the actions."""
        args = self._json("env_args")
        options = args.get("env_kwargs")
        options = options if isinstance(options, dict) else {}
        controller = options.get("controller_configs")
        controller = controller if isinstance(controller, dict) else {}
        mode, delta = controller.get("type"), controller.get("control_delta")
        file = self.about.get("bddl_file_name") or args.get("bddl_file")
        environment = PurePosixPath(file).stem if isinstance(file, str) and file else args.get("env_name")
        rate = options.get("control_freq")
        return Conventions(
            environment=environment if isinstance(environment, str) and environment else None,
            control_mode=mode if isinstance(mode, str) and mode else None,
            action=("delta" if delta else "absolute") if isinstance(delta, bool) else None,
            frame=None if mode is None else "world" if mode in HAND_CONTROLLERS else "joints",
            gripper="positive_closes" if self.about else None,
            fps=rate if isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0 else None,
        )


def is_robomimic(path: Path) -> bool:
    """True for an HDF5 file with demonstrations in `data`."""
    return "data" in get_names(path) and any(DEMO.fullmatch(name) for name in get_names(path, "data"))


def suggest_schema(source: RobomimicFile) -> str | None:
    """Returns `libero` for a file with LIBERO's features."""
    return "libero" if all(name in source.features for name in LIBERO.features if name != SENTENCE) else None


LIBERO = Schema(
    name="libero",
    cameras=("agentview_rgb", "eye_in_hand_rgb"),
    proprio=("ee_states", "gripper_states"),  # position, axis-angle and the two finger positions
    proprio_dim=8,
    action=("actions",),
    action_dim=7,
    instruction=SENTENCE,
    turn_gripper=True,
    turn_images=True,
    pass_through=(6,),
    conventions=Conventions(gripper="positive_opens"),
)
ROBOMIMIC = Schema(
    name="robomimic",
    cameras=(),  # all cameras of the file
    proprio=("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    proprio_dim=None,
    action=("actions",),
    action_dim=None,
    instruction=SENTENCE,
)
FORMAT = Format(
    layout="an .hdf5 file with data/demo_<number> (LIBERO, robomimic)",
    matches=is_robomimic,
    open=RobomimicFile,
    schemas=by_name(LIBERO, ROBOMIMIC),
    suggest=suggest_schema,
)
