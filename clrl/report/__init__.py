"""From runs to conclusions: aggregates over seeds and tables."""
