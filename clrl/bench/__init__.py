"""Benchmarks of the engine itself: ratios measured in one run on one core."""
