"""Ways to run the cells of a study. `local` runs them in processes of this machine."""
