"""Environments as gymnasium environments with one observation and info contract. Knows no torch model."""
