"""Suites of gymnasium environments under one contract (`muvla.envs.base`). No module here imports a torch model."""
