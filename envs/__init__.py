"""Where experience comes from, and how it changes (NumPy and Gymnasium, no torch)."""
