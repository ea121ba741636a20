"""ManiSkill's own table-top tasks, and SimplerEnv's Bridge twins that come with it (ManiSkill 3.0.1).

ManiSkill is not imported before an environment is made: one environment per process, as for MIKASA-Robo.
"""

from muvla.envs.maniskill.env import ManiSkillEnv
from muvla.envs.maniskill.tasks import MANISKILL_TASKS, ManiSkillTask

__all__ = ["MANISKILL_TASKS", "ManiSkillEnv", "ManiSkillTask"]
