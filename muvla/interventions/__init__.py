"""What is done to a memory, where and when."""

from muvla.interventions.grammar import canonical_name, example, parse_intervention
from muvla.interventions.kinds import INTERVENTIONS

EXAMPLES = {name: example(kind) for name, kind in INTERVENTIONS.items()}  # one that bites, of every kind

__all__ = ["EXAMPLES", "INTERVENTIONS", "canonical_name", "parse_intervention"]
