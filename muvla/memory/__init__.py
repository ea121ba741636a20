"""Memory mechanisms under one contract."""
