"""LIBERO's task suites Spatial, Object, Goal, 10 (Long) and 90."""
