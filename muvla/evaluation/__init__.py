"""Versioned protocols, batched rollouts, and one row per episode."""
