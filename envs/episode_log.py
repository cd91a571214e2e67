"""A log from which an episode can be repeated, where its state cannot be read out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from clrl.envs.physics import parameters_of
from clrl.envs.physics.lunar_lander import LunarLanderParameters
from clrl.envs.plain import from_plain, generator_state, load_generator, to_plain
from clrl.errors import UsageError


class EpisodeLog(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Makes the state of a LunarLander exact, by replaying its episode.

    Box2D does not hand out all of a world (contacts, forces carried over from step to step), so
    it cannot be read out. The log keeps what an episode follows from: the generator when it
    began, the arguments of ``reset``, the actions, and the physics with the steps at which they
    changed. To load it is to play them again, in less than 0.1 ms a step; a replay that does
    not arrive where the first one was is refused.

    It goes directly around the bare environment, inside all other wrappers::

        gymnasium.register("...", entry_point=lambda **options: EpisodeLog(LunarLander(**options)))

    Args:
        env: the bare LunarLander.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """See the class.

        Raises:
            UsageError: `env` is wrapped, or is no LunarLander.
        """
        if env is not env.unwrapped or not isinstance(parameters_of(env), LunarLanderParameters):
            raise UsageError(f"EpisodeLog: expected the bare LunarLander, got {env}")
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._parameters = parameters_of(env)
        self._begin(None)

    def _begin(self, start: dict[str, Any] | None) -> None:
        self._start = start  # None before the first episode
        # How many steps were done, and the values from there on.
        self._physics = [(0, self._parameters.state_dict())]
        self._actions: list[NDArray[Any]] = []
        self._observation: NDArray[Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and its log."""
        start = {"np_random": generator_state(self.env), "seed": seed, "options": to_plain(options)}
        self._begin(start)
        observation, info = self.env.reset(seed=seed, options=options)
        self._observation = np.array(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and log the action."""
        self._note_physics()
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._actions.append(np.array(action))
        self._observation = np.array(observation)
        return observation, reward, terminated, truncated, info

    def _note_physics(self) -> None:
        values = self._parameters.state_dict()
        if values != self._physics[-1][1]:
            self._physics.append((len(self._actions), values))

    def own_state_dict(self) -> dict[str, Any]:
        """The log, and where it led."""
        self._note_physics()
        return {
            "start": self._start,
            "physics": [[step, values] for step, values in self._physics],
            "actions": to_plain(np.array(self._actions)),
            "np_random": generator_state(self.env),
            "observation": to_plain(self._observation),
        }

    def load_own_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the episode again.

        Raises:
            UsageError: it did not arrive where it was.
        """
        (_, physics), *changes = state["physics"]
        start, actions = state["start"], from_plain(state["actions"])
        self._parameters.load_state_dict(physics)
        load_generator(self.env, (start or state)["np_random"])
        if start is None:
            lander: Any = self.env
            lander._destroy()  # of an episode that is forgotten
            self._begin(None)
        else:
            self.reset(seed=start["seed"], options=from_plain(start["options"]))
        for step in range(len(actions) + 1):
            for _, values in (change for change in changes if change[0] == step):
                self._parameters.load_state_dict(values)
            if step < len(actions):
                self.step(actions[step])
        if self.own_state_dict() != state:
            raise UsageError(
                f"environment state: the episode of {self.env} did not replay exactly; expected "
                "the machine and libraries that it was recorded with"
            )
