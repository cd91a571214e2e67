"""From runs to conclusions: aggregates over seeds, tables, reports."""

from typing import Literal

Format = Literal["html", "pdf", "png", "csv", "parquet", "json", "latex"]
"""What ``clrl report`` can write."""
