"""Words typed: the command line, its options as classes, and the choices of a run."""
