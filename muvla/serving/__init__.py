"""Serve a policy to robots and benchmarks, and evaluate policies that other servers serve."""
