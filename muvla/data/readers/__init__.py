"""Readers of published demonstrations."""
