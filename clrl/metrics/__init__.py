"""Metrics: pure functions of arrays, one definition a name."""
