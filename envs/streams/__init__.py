"""Supervised streams whose task changes: seeded, endless, exactly repeatable."""
