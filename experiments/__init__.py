"""One folder per study: README.md and study.py."""
