"""Episodes of a MIKASA task with changed looks, all in one process: `python -m helpers.looks FOLDER`.

A start of the simulator costs far more than an episode. The episodes of one task come in order, and the last one paints
its objects, since the suite shares its colours between environments of a process.
"""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muvla.config import TaskConfig
from muvla.envs.registry import make_env

COLOR, BOTH = "RememberColor3-VLA-v0", "RememberShapeAndColor3x2-VLA-v0"
NEW = ("pink", "lime", "brown")
EPISODES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (12, {"name": COLOR}),
    "camera": (12, {"name": COLOR, "shift": "camera"}),
    "light": (12, {"name": COLOR, "shift": "light"}),
    "distractor": (12, {"name": COLOR, "shift": "distractor"}),
    "palette": (12, {"name": COLOR, "palette": NEW}),
    "shapes": (8, {"name": BOTH}),
    "painted": (8, {"name": BOTH, "palette": NEW, "step_limit": 40}),
}


@dataclass(frozen=True)
class Look:
    """The first steps of an episode.

    Attributes:
        pictures: (steps, cameras, height, width, 3).
        rest: joints, target, choice, phase and the expert's action by step.
        altered: what the provenance says of the changes.
    """

    pictures: np.ndarray
    rest: list[Any]
    altered: tuple[str, ...]


def look(steps: int, changes: dict[str, Any]) -> Look:
    env = make_env(TaskConfig(**changes))
    try:
        observation, info = env.reset(seed=11)
        pictures, rest = [], []
        for step in range(steps):
            pictures.append(observation["images"].astype(int))
            told = (info["target"], info["choice"], info["phase"])
            rest.append([observation["proprio"].tolist(), *told, info["expert_action"].tolist()])
            if step < steps - 1:
                observation, *_, info = env.step(info["expert_action"])
        return Look(np.array(pictures), rest, tuple(env.provenance.get("altered", ())))
    finally:
        env.close()


if __name__ == "__main__":
    from helpers import looks  # so that the pickles name this module, not `__main__`

    for name, (steps, changes) in EPISODES.items():
        (Path(sys.argv[1]) / f"{name}.pickle").write_bytes(pickle.dumps(looks.look(steps, changes)))
