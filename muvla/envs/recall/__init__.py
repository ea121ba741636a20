"""The embedded recall suite: a cue, a delay, a choice, in NumPy. Importing this
package registers its tasks with gymnasium.

A step has the anatomy of MIKASA-Robo's Remember tasks. During the cue something is shown, during the delay nothing is,
and in the decision phase N discs can be touched by a 2-D effector that was frozen until then. Truth is known: a policy
without memory, querying at every step, cannot choose better than 1/N; perfect memory scores 1.
"""

from muvla.envs.recall.env import RecallEnv
from muvla.envs.recall.tasks import RECALL_TASKS, register_recall

register_recall()

__all__ = ["RECALL_TASKS", "RecallEnv"]
