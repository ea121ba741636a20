"""Launchers, which run the work of cells somewhere. `local` runs it in processes of this machine."""
