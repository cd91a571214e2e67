"""The physics of classic control on torch's tensors, against the same on NumPy's arrays.

The tensors are on the CPU: what a GPU's own cosine would change is not seen here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clrl.agents.arrays import TorchArrays
from clrl.agents.device import CPU
from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.control import OffsetCartPole, vector_of
from clrl.envs.state import load_state_dict, state_dict

LANES, STEPS = 8, 100
Array = NDArray[Any]


@pytest.fixture(params=VECTOR_ENVS)
def env_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pair(env_id: str) -> tuple[Any, Any]:
    """The same environment on arrays and on tensors, some lanes with other physics."""
    envs = [VECTOR_ENVS[env_id](LANES), VECTOR_ENVS[env_id](LANES, arrays=TorchArrays(CPU))]
    for env in envs:
        for name in env.parameters:
            built = env.get_parameter(name)[1:4]
            env.set_parameter(name, [1, 2, 3], built * [0.7, 0.8, 0.9])
    return envs[0], envs[1]


def actions_for(env: Any) -> list[Array]:
    """Beyond the bounds where actions are real numbers."""
    env.action_space.seed(0)
    return [
        actions if actions.dtype.kind == "i" else 1.5 * actions
        for actions in (env.action_space.sample() for _ in range(STEPS))
    ]


class TestRollouts:
    def test_states_rewards_and_ends_agree(self, env_id: str) -> None:
        """To 1e-9, of states of size 1: 100 steps multiply float64's 1e-16 by far less than 1e7.

        Where Gymnasium's own state is float32, to 1e-5.
        """
        one, other = pair(env_id)
        tolerance = 1e-5 if env_id == "MountainCarContinuous-v0" else 1e-9
        first, second = one.reset(seed=3)[0], other.reset(seed=3)[0]
        np.testing.assert_array_equal(first, second)
        ends = 0
        for actions in actions_for(one):
            ours, theirs = one.step(actions), other.step(actions)
            assert isinstance(other.state, torch.Tensor)
            assert other.state.dtype == torch.float64 or other.env_id.startswith("MountainCarC")
            np.testing.assert_allclose(
                other.state.numpy(), one.state, rtol=tolerance, atol=tolerance
            )
            for mine, its in zip(ours[:2], theirs[:2], strict=True):
                assert isinstance(its, np.ndarray)
                assert its.dtype == mine.dtype
                assert its.flags.c_contiguous
                np.testing.assert_allclose(its, mine, rtol=1e-5, atol=1e-5)
            for mine, its in zip(ours[2:4], theirs[2:4], strict=True):
                np.testing.assert_array_equal(its, mine)
            ends += int((ours[2] | ours[3]).sum())
        assert ends or env_id != "CartPole-v1"  # resets were among it

    def test_a_step_in_float32(self, env_id: str) -> None:
        """To 1e-4, relative to 1 or the size: some ten operations of 6e-8 each, and divisions."""
        one, other = pair(env_id)
        one.reset(seed=5)
        for actions in actions_for(one)[:20]:
            one.step(actions)
        xp = TorchArrays(CPU)
        for actions in actions_for(one)[20:40]:
            state = xp.asarray(one.state.astype(np.float32))
            physics = {
                name: value.float() if value.dtype == torch.float64 else value
                for name, value in other._physics.items()
            }
            new, reward, terminated = other.dynamics(state, xp.asarray(actions), physics, xp)
            exact = one.dynamics(one.state, actions, one._physics, np)
            assert new.dtype == torch.float32
            np.testing.assert_allclose(new.numpy(), exact[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(reward.numpy(), exact[1], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(terminated.numpy(), exact[2])
            one.step(actions)


class TestState:
    def test_it_is_the_same_everywhere(self, env_id: str) -> None:
        """A state of tensors is one of plain numbers, and goes on in an environment of arrays."""
        one, other = pair(env_id)
        other.reset(seed=1)
        actions = actions_for(one)
        for taken in actions[:30]:
            other.step(taken)
        one.reset(seed=2)
        one.load_state_dict(other.state_dict())
        again = VECTOR_ENVS[env_id](LANES, arrays=TorchArrays(CPU))
        again.load_state_dict(other.state_dict())
        for taken in actions[30:60]:
            on_arrays, on_tensors, loaded = (e.step(taken)[0] for e in (one, other, again))
            np.testing.assert_array_equal(loaded, on_tensors)
            np.testing.assert_allclose(on_arrays, on_tensors, rtol=1e-5, atol=1e-5)


class TestVectorOf:
    def test_a_benchmark(self) -> None:
        """A changing task around tensors shows what it shows around arrays."""
        recipe = OffsetCartPole(task_length=40)
        envs = [vector_of(recipe, 4, 2, arrays=arrays) for arrays in (None, TorchArrays(CPU))]
        assert isinstance(envs[1].unwrapped.xp, TorchArrays)  # type: ignore[attr-defined]
        for env in envs:
            env.reset(seed=[3, 4, 5, 6])
        for actions in np.random.default_rng(0).integers(0, 2, (60, 4)):
            one, other = (env.step(actions) for env in envs)
            np.testing.assert_allclose(other[0], one[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(other[4]["task"], one[4]["task"])
        assert one[4]["task"].max() > 0
        load_state_dict(envs[0], state_dict(envs[1]))
        for mine, its in zip(*(env.step(actions)[:4] for env in envs), strict=True):
            np.testing.assert_allclose(its, mine, rtol=1e-5, atol=1e-5)

    def test_numpy_unless_said_otherwise(self) -> None:
        assert vector_of(OffsetCartPole(), 2, 1).unwrapped.xp is np  # type: ignore[attr-defined]
