"""Examples of plug-ins for clrl, a file a kind."""
