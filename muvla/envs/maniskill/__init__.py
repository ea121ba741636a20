"""ManiSkill's table-top tasks, and SimplerEnv's Bridge twins that ManiSkill contains (ManiSkill 3.0.1).

ManiSkill is imported when the first environment is made. Every environment has a process of its own, as for
MIKASA-Robo.
"""

from muvla.envs.maniskill.env import ManiSkillEnv
from muvla.envs.maniskill.tasks import MANISKILL_TASKS, ManiSkillTask

__all__ = ["MANISKILL_TASKS", "ManiSkillEnv", "ManiSkillTask"]
