"""Suites and paper presets: data only."""
