"""Tuning of a study's recipe: the same trials for every variant, on seeds and episodes that no evaluation uses."""
