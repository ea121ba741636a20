"""Budgets, the training loop and exact resume."""
