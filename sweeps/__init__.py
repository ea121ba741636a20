"""Studies: the cells of a grid, the ledger of what was run, launchers, tracking."""
