"""The OpenVLA-OFT anatomy with MEMORY tokens. Knows no simulator and no dataset."""
