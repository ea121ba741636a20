"""LIBERO's 130 tasks: what is known of each without its package."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

# Steps of the policy, those after the settling alone (as published: μVLA spec 6.2; of the 90, MemoryVLA's).
STEP_LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
INITIAL_STATES = 50  # of every task, fixed


@dataclass(frozen=True)
class LiberoTask:
    suite: str  # libero_spatial, libero_object, libero_goal, libero_10, libero_90
    number: int  # in the suite's own order
    file: str  # the suite's name of the task, and of its files

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.number}"

    @property
    def step_limit(self) -> int:
        return STEP_LIMITS[self.suite]

    @property
    def instruction(self) -> str:
        """That of the published demonstrations and evaluations: the file's name without its scene, in lower case. The
        task's own definition (BDDL) often words it otherwise."""
        return re.sub(r"^[A-Z_]+_SCENE\d+_", "", self.file).replace("_", " ").lower()


_FILES: dict[str, list[str]] = json.loads((Path(__file__).parent / "tasks.json").read_text(encoding="utf-8"))
LIBERO_TASKS = {
    task.name: task
    for suite, files in _FILES.items()
    for task in (LiberoTask(suite, number, file) for number, file in enumerate(files))
}
