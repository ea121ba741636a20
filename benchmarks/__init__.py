"""Claims of speed as ratios, both sides measured in turn in one run."""
