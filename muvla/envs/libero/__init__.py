"""LIBERO's suites: Spatial, Object, Goal, 10 (Long) and 90."""
