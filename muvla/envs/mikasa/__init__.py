"""MIKASA-Robo's tasks as muvla environments (mikasa-robo-suite 1.0.0 on ManiSkill 3.0.1).

Neither the suite nor ManiSkill is imported before an environment is made. SAPIEN keeps global state: one environment
per process (`muvla.envs.workers`).
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
