"""Tables for a paper: LaTeX with booktabs that fits a column, built from the CSV files of a report."""
