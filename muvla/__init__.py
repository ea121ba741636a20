"""muvla: controlled ablations of recurrent memory in vision-language-action policies.

The names below are the public interface. Each is imported when it is first used, so that `import muvla` is fast and
imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "muvla.config": (
        "BudgetConfig",
        "Cell",
        "DataConfig",
        "DatasetConfig",
        "LoraConfig",
        "MemoryConfig",
        "ModelConfig",
        "OptimizerConfig",
        "StartConfig",
        "TaskConfig",
        "dummy",
        "ema",
        "no_memory",
        "tbptt",
    ),
    "muvla.config.expert": ("get_expert",),
    "muvla.config.serialization": ("replace",),
    "muvla.config.sizes": ("get_size",),
    "muvla.data.collect": ("collect",),
    "muvla.errors": ("MuvlaError",),
    "muvla.evaluation.catalog": ("get_protocol", "get_protocols"),
    "muvla.evaluation.evaluate": ("evaluate_policy",),
    "muvla.evaluation.protocol": ("Protocol",),
    "muvla.evaluation.records": ("summarise",),
    "muvla.evaluation.rollout": ("Rollout",),
    "muvla.interventions": ("parse_intervention",),
    "muvla.models.policy": ("Policy",),
    "muvla.probes.base": ("ScheduledMeasurement",),
    "muvla.probes.registry": ("get_grid", "get_measurement"),
    "muvla.recurrence": ("Recurrence",),
    "muvla.runs.evaluate": ("Evaluator",),
    "muvla.runs.find": ("load_run",),
    "muvla.training.trainer": ("Trainer",),
    "sweeps.loader": ("load_study",),
    "sweeps.predictions": ("Prediction",),
    "sweeps.study": ("Study",),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
