"""Changes of a memory: what is done to it, where and when."""

from muvla.interventions.grammar import canonical_name, example, parse_intervention
from muvla.interventions.registry import INTERVENTIONS, get_intervention_kind, sham_of

# Kind → a name of this kind that changes the actions.
EXAMPLES = {name: example(get_intervention_kind(name)) for name in INTERVENTIONS.members}

__all__ = ["EXAMPLES", "INTERVENTIONS", "canonical_name", "get_intervention_kind", "parse_intervention", "sham_of"]
