"""What learns: networks, update rules and the population engine (torch).

This package knows nothing of environments, files or the recorder.
"""
