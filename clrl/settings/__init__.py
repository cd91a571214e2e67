"""What a run is: its configuration, typed and checked, and tables of settings to try."""
