"""MIKASA-Robo's tasks as muvla environments (mikasa-robo-suite 1.0.0 on ManiSkill 3.0.1).

The suite and ManiSkill are imported when the first environment is made. SAPIEN keeps global state, so every environment
has a process of its own (`muvla.envs.workers`).
"""

from muvla.envs.mikasa.env import MikasaEnv
from muvla.envs.mikasa.simulator import backends
from muvla.envs.mikasa.tasks import ALL_SHORT, LONG, MIKASA_TASKS, PUBLISHED, TRAINED, MikasaTask

__all__ = [
    "ALL_SHORT",
    "LONG",
    "MIKASA_TASKS",
    "PUBLISHED",
    "TRAINED",
    "MikasaEnv",
    "MikasaTask",
    "backends",
]
