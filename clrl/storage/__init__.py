"""What a run leaves on disk: measurements, status, checkpoints, and what they were made with."""
