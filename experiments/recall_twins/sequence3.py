"""The observable twin of one task; `make_study` describes the study."""

from __future__ import annotations

from experiments.recall_twins.study import make_study

study = make_study("sequence3")
