"""Evaluations that change the task (a Grid), and what is read from a memory (a Measurement)."""
