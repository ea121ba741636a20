"""The OpenVLA-OFT model with MEMORY tokens. This package knows no simulator and no dataset."""
