"""The loops: what trains a population, measures it and goes on from a checkpoint."""
