"""Stable-Baselines3's algorithms as learners: our update rules and metrics on its networks.

Stable-Baselines3 collects experience and computes losses; here its optimizers are replaced by an
update rule, and its networks get the declaration of hidden layers that unit-level rules and unit
metrics read. A learner is one seed: Stable-Baselines3 knows of no populations.
"""

from clrl.agents.sb3.generators import own_generators
from clrl.agents.sb3.lanes import Lanes
from clrl.agents.sb3.learner import Diverged, Learner
from clrl.agents.sb3.off_policy import DQN, SAC, TD3
from clrl.agents.sb3.on_policy import A2C, PPO
from clrl.agents.sb3.view import PolicyView

__all__ = [
    "A2C",
    "DQN",
    "PPO",
    "SAC",
    "TD3",
    "Diverged",
    "Lanes",
    "Learner",
    "PolicyView",
    "own_generators",
]
