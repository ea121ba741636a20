"""Studies: their cells, the ledger of what was run, launchers, and views of the results."""
