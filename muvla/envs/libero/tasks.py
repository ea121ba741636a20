"""LIBERO's 130 tasks, and the facts about each task that are known without LIBERO's package."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

# Steps after the settling, as published (μVLA spec 6.2); the limit of libero_90 is MemoryVLA's.
STEP_LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
INITIAL_STATES = 50  # fixed states of every task


@dataclass(frozen=True)
class LiberoTask:
    suite: str  # libero_spatial, libero_object, libero_goal, libero_10, libero_90
    number: int  # in LIBERO's order
    file: str  # LIBERO's name of the task and of the task's files

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.number}"

    @property
    def step_limit(self) -> int:
        return STEP_LIMITS[self.suite]

    @property
    def instruction(self) -> str:
        """The sentence of the published demonstrations and evaluations: the file's name without scene, in lower case.

        The task's definition (BDDL) often has other words.
        """
        return re.sub(r"^[A-Z_]+_SCENE\d+_", "", self.file).replace("_", " ").lower()


_FILES: dict[str, list[str]] = json.loads((Path(__file__).parent / "tasks.json").read_text(encoding="utf-8"))
LIBERO_TASKS = {
    task.name: task
    for suite, files in _FILES.items()
    for task in (LiberoTask(suite, number, file) for number, file in enumerate(files))
}
