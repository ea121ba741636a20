"""Draw a filmstrip of every recall task, from the environment itself: `python docs/images/tasks.py`.

`task-<name>.png` shows the base camera at every step of one episode under the scripted expert. The last frame, in a red
border, is the first frame of the decision of the observable twin.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from muvla.config import TaskConfig
from muvla.envs.registry import make_env

FOLDER = Path(__file__).parent
PIXELS = 96
# Short name → configuration and seed. Phases are fixed, and the episodes are chosen, so that a strip shows every part.
STRIPS: dict[str, tuple[TaskConfig, int]] = {
    "position3": (TaskConfig("RecallPosition3-v0", cue=(2, 2), delay=(2, 2)), 0),
    "interference3": (TaskConfig("RecallInterference3-v0", cue=(1, 1), delay=(3, 3), distractors=(2, 2)), 7),
    "color3": (TaskConfig("RecallColor3-v0", cue=(2, 2), delay=(2, 2)), 0),
    "count3": (TaskConfig("RecallCount3-v0", cue=(5, 5), delay=(1, 1)), 2),
    "overwrite3": (TaskConfig("RecallOverwrite3-v0", cue=(1, 1), delay=(3, 3)), 4),
    "tracking3": (TaskConfig("RecallTracking3-v0", cue=(1, 1), delay=(4, 4), moves=(2, 2)), 2),
    "capacity5": (TaskConfig("RecallCapacity5-v0", cue=(1, 1), delay=(1, 1)), 5),
    "sequence3": (TaskConfig("RecallSequence3-v0", cue=(2, 2), delay=(1, 1)), 2),
}


def play(task: TaskConfig, seed: int) -> tuple[list[np.ndarray], list[str], str]:
    """The base camera's frames of an expert's episode, the name of each frame, and the instruction."""
    env = make_env(task, PIXELS)
    observation, info = env.reset(seed=seed)
    frames, names, touches, over = [], [], 0, False
    while True:
        frames.append(observation["images"][0])
        names.append(info["phase"].name.lower())
        count = len(info.get("choices", ())) or int(info["choice"] >= 0)
        if count > touches:
            names[-1], touches = f"touch {count}", count
        if over:
            return frames, names, info["instruction"]
        observation, _, terminated, truncated, info = env.step(info["expert_action"])
        over = terminated or truncated


def draw(task: TaskConfig, seed: int) -> plt.Figure:
    frames, names, instruction = play(task, seed)
    twin, twin_names, _ = play(TaskConfig(**{**vars(task), "observable": True}), seed)
    shown = [*frames, twin[twin_names.index("decision")]]
    figure, axes = plt.subplots(1, len(shown), figsize=(0.95 * len(shown) + 0.3, 1.5), layout="constrained")
    for place, (axis, frame, name) in enumerate(zip(axes, shown, [*names, "twin"], strict=True)):
        axis.imshow(frame)
        axis.set_title(name, fontsize=8)
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_color("#cc6677" if place == len(shown) - 1 else "white")
            spine.set_linewidth(2)
    figure.suptitle(f"{task.name}: {instruction}", fontsize=9)
    return figure


def main() -> None:
    for name, (task, seed) in STRIPS.items():
        figure = draw(task, seed)
        figure.savefig(FOLDER / f"task-{name}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
