"""Demonstrations: collecting, importing, storing, normalising and streaming them."""
