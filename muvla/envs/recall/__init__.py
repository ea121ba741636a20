"""The embedded recall suite: a cue, a delay and a choice, in NumPy.

Importing this package registers the tasks with gymnasium. An episode has the phases of MIKASA-Robo's Remember tasks.
The cue shows something, and the delay shows nothing. In the decision phase a 2-D effector, frozen until then, can touch
one of N discs. The truth is known: a policy without memory that queries at every step cannot choose better than 1/N,
and perfect memory scores 1.
"""

from muvla.envs.recall.env import RecallEnv
from muvla.envs.recall.tasks import RECALL_TASKS, register_recall

register_recall()

__all__ = ["RECALL_TASKS", "RecallEnv"]
