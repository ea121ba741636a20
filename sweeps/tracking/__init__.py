"""Trackers: views of the run folders in other tools. A tracker may fail or be off without changing a result."""
