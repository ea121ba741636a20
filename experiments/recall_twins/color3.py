"""The observable twin of one task; `make_study` describes the study."""

from __future__ import annotations

from experiments.recall_twins.twins import make_study

study = make_study("color3-even")
