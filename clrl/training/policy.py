"""What a run has learned, taken from its checkpoint: to act, to be looked at, to be tried."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clrl.agents.networks import Network
from clrl.agents.options import SB3Options
from clrl.errors import StorageError, UsageError
from clrl.registry import plug_ins_refused
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage import checkpoint, record
from clrl.training.control import ControlTraining
from clrl.training.dispatch import training

Array = NDArray[Any]


class Policy:
    """The learner of one run, as it was at the run's last checkpoint. It learns no further.

    Args:
        config: what the run is.
        seed: its seed.
        state: that of the loop which trained it, from a checkpoint.
        member: which one of the loop's learners it is.

    Attributes:
        config: what the run is.
        seed: its seed.
        step: of the checkpoint.
        network: an ordinary module with the run's parameters; a copy, so that what is done to it
            does not change how the policy acts. Of an agent such as ppo it maps observations to
            the policy's outputs, its further parameters, and values.
        observation_space: of one environment; None for a stream's run.
        action_space: of one environment; None for a stream's run.
        last_task: index of the task in which the checkpoint was written; None for a stream's run.
    """

    config: RunConfig
    seed: int
    step: int
    network: Network
    observation_space: spaces.Space[Any] | None = None
    action_space: spaces.Space[Any] | None = None
    last_task: int | None = None

    def __init__(self, config: RunConfig, seed: int, state: dict[str, Any], member: int) -> None:
        loop = training(config, [seed])
        self.config, self.seed, self.step = config, seed, int(state["step"])
        self._agent = cast(Any, loop).agent
        self._agent.take_member(state["agent"], member)
        self.network = self._agent.population.module(0)
        self._axes = 1
        if isinstance(loop, ControlTraining):
            self.observation_space = loop.envs.single_observation_space
            self.action_space = loop.envs.single_action_space
            self._axes = len(self.observation_space.shape or ())
            self.last_task = int(self._agent.tasks[0])
            loop.envs.close()

    def act(self, observations: Any, deterministic: bool = True) -> Any:
        """Decide, as the run's own tests do.

        Observations are given as environments give them; where training normalised them, they are
        normalised here by the statistics of the checkpoint.

        Args:
            observations: one, or several as ``[n, ...]``.
            deterministic: take the likeliest action; otherwise draw one from the policy, by the
                policy's own generator.

        Returns:
            One action, or ``[n, ...]``, as environments take them. For a stream's run what the
            network gives for inputs ``[n, inputs]``: logits of the classes, or predictions.

        Raises:
            UsageError: observations have another shape, or a stream's run is to draw.
        """
        given = np.asarray(observations)
        space = self.observation_space
        single = given.ndim == self._axes
        if given.ndim not in (self._axes, self._axes + 1) or (
            space is not None and given.shape[given.ndim - self._axes :] != space.shape
        ):
            shape = space.shape if space is not None else "inputs"
            raise UsageError(f"observations: expected {shape}, or n of them, got {given.shape}")
        rows = given[None] if single else given
        if deterministic:
            actions = self._agent.answer(rows)
        elif space is None:
            raise UsageError("deterministic: expected true, since a stream's learner draws nothing")
        else:
            actions = self._agent.draw(rows)
        return actions[0] if single else actions

    __call__ = act


def load_policy(folder: str | Path, trust: bool = False) -> Policy:
    """What a run has learned, from its last checkpoint; the run may still be going.

    Args:
        folder: the run's, such as ``runs/q/offset-cartpole/adam/seed-0``.
        trust: import the plug-ins that the folder names. Without it, none is imported.

    Raises:
        UsageError: the folder holds no run with a checkpoint that can be read, the agent keeps
            nothing that could act by itself, or a plug-in is named and not trusted.
    """
    folder = Path(folder)
    status = record.read_status(folder) if folder.is_dir() else {}
    raw = record.read_config(folder)
    seed, group = status.get("seed"), status.get("population")
    if type(seed) is not int or not isinstance(group, list) or seed not in group or not raw:
        raise UsageError(
            f"{folder}: expected a run's folder, such as runs/NAME/BENCHMARK/LEARNER/seed-0, with "
            f"{record.STATUS} and {record.CONFIG}"
        )
    refused = plug_ins_refused("a folder's plug-ins are imported with trust=True alone")
    with contextlib.nullcontext() if trust else refused:
        config = resolve(raw, Place(str(folder / record.CONFIG)))
        if isinstance(config.agent.options, SB3Options):
            raise UsageError(
                f"{folder}: {config.agent.name} keeps no finished learner; expected a run of an "
                "agent such as ppo or supervised"
            )
        # Together they have one checkpoint, in the folder of the first of them.
        state = _state(folder.with_name(f"seed-{group[0]}"), folder)
        try:
            return Policy(config, seed, state, group.index(seed))
        except AttributeError as error:
            raise UsageError(
                f"{folder}: {config.agent.name} cannot act by itself ({error}); expected an agent "
                "with answer, draw and take_member, such as ppo"
            ) from error
        except (KeyError, IndexError, RuntimeError, TypeError) as error:
            raise UsageError(f"{folder}: its checkpoint does not suit it: {error!r}") from error


def _state(home: Path, folder: Path) -> dict[str, Any]:
    """The loop's state in the newest checkpoint that can be read."""
    damaged = ""
    for path in checkpoint.candidates(home):
        try:
            state: dict[str, Any] = checkpoint.read(path)["loop"]
            return state
        except (checkpoint.Damaged, StorageError) as error:
            damaged = damaged or str(error)
    raise UsageError(damaged or f"{folder}: no checkpoint yet; {home} is where it will be")
