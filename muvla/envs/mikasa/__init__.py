"""MIKASA-Robo's 23 published tasks as muvla environments (mikasa-robo-suite 1.0.0 on ManiSkill 3.0.1).

Neither the suite nor ManiSkill is imported before an environment is made. SAPIEN keeps global state: one environment
per process (`muvla.envs.workers`).
"""

from muvla.envs.mikasa.env import CAMERA_SIZE, MikasaEnv, make_mikasa, settable
from muvla.envs.mikasa.simulator import backends
from muvla.envs.mikasa.tasks import MIKASA_TASKS, TRAINED, MikasaTask

__all__ = ["CAMERA_SIZE", "MIKASA_TASKS", "TRAINED", "MikasaEnv", "MikasaTask", "backends", "make_mikasa", "settable"]
