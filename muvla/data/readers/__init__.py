"""Readers of demonstrations that others have published."""
