"""Penalties on the loss: terms that are added to one learner's objective."""
