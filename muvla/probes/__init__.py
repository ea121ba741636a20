"""Evaluations that change the task or read the memory."""
