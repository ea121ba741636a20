"""Configuration of a training. A study file takes its names from here."""

from muvla.config.budget import BudgetConfig, OptimizerConfig
from muvla.config.cell import SELECTIONS, BlockOrigin, Cell
from muvla.config.data import DataConfig, DatasetConfig, TaskConfig
from muvla.config.identity import canonical, of_sources, started_at, train_id
from muvla.config.memory import MemoryConfig
from muvla.config.model import (
    Guard,
    LoraConfig,
    ModelConfig,
    Precision,
    ReleasedPrecision,
    SizeConfig,
    StartConfig,
    TowerConfig,
)
from muvla.config.presets import dummy, ema, no_memory, tbptt

__all__ = [
    "SELECTIONS",
    "BlockOrigin",
    "BudgetConfig",
    "Cell",
    "DataConfig",
    "DatasetConfig",
    "Guard",
    "LoraConfig",
    "MemoryConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Precision",
    "ReleasedPrecision",
    "SizeConfig",
    "StartConfig",
    "TaskConfig",
    "TowerConfig",
    "canonical",
    "dummy",
    "ema",
    "no_memory",
    "of_sources",
    "started_at",
    "tbptt",
    "train_id",
]
