"""Demonstrations: collecting, storing, normalising and streaming them."""
