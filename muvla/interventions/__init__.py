"""What is done to a memory, where and when."""

from muvla.interventions.kinds import INTERVENTIONS, intervention

__all__ = ["INTERVENTIONS", "intervention"]
