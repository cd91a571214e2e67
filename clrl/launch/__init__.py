"""How populations are carried out: one process each, one torch thread a process."""
