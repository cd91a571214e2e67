"""Distributions of actions against torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Categorical, Normal

from clrl.agents.actions import Discrete, Gaussian, actions_of
from clrl.errors import UsageError

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "one choice": spaces.Discrete(1),
    "multi-discrete": spaces.MultiDiscrete([3, 2, 5]),
    "continuous": spaces.Box(-1.0, np.array([1.0, 2.0, 3.0], np.float32)),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_outputs(space: spaces.Space[Any], *shape: int) -> tuple[Tensor, Tensor]:
    """Outputs of a policy and its further parameters."""
    actions = actions_of(space)
    outputs = 2 * torch.randn(*shape, actions.num_outputs, generator=seeded(0))
    return outputs, torch.linspace(-1.0, 0.5, actions.num_parameters)


def parts_of(space: spaces.Space[Any], outputs: Tensor) -> list[Categorical]:
    sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.tolist()
    return [Categorical(logits=part) for part in torch.split(outputs, [int(n) for n in sizes], -1)]


@pytest.mark.parametrize("kind", ["discrete", "one choice", "multi-discrete"])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_choices_have_torchs_log_probabilities_and_entropies(kind: str, scale: float) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 7, 5)
    outputs = scale * outputs
    parts = parts_of(space, outputs)
    chosen = [torch.randint(part.logits.shape[-1], (7, 5), generator=seeded(1)) for part in parts]
    expected = sum(part.log_prob(one) for part, one in zip(parts, chosen, strict=True))
    taken = torch.stack(chosen, dim=-1)
    got = actions.log_prob(outputs, parameters, taken.float())
    assert got.shape == (7, 5)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    expected = sum(part.entropy() for part in parts)
    torch.testing.assert_close(actions.entropy(outputs, parameters), expected, rtol=1e-5, atol=1e-5)


def test_real_numbers_have_torchs_log_densities_and_entropies() -> None:
    space = SPACES["continuous"]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 7, 5)
    normal = Normal(outputs, parameters.exp())
    taken = 3 * torch.randn(7, 5, 3, generator=seeded(1))  # mostly out of bounds
    got = actions.log_prob(outputs, parameters, taken)
    torch.testing.assert_close(got, normal.log_prob(taken).sum(-1), rtol=1e-5, atol=1e-5)
    entropy = actions.entropy(outputs, parameters)
    assert entropy.shape == (7, 5)
    torch.testing.assert_close(entropy, normal.entropy().sum(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SPACES)
def test_gradients_are_those_of_torchs_distributions(kind: str) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = (value.requires_grad_() for value in some_outputs(space, 6))
    with torch.no_grad():
        noise = torch.from_numpy(drawn(actions, 6))
        taken = actions.sample(outputs, parameters, noise)
    ours = actions.log_prob(outputs, parameters, taken) + actions.entropy(outputs, parameters)
    if isinstance(actions, Gaussian):
        normal = Normal(outputs, parameters.exp())
        theirs = (normal.log_prob(taken) + normal.entropy()).sum(-1)
        of = [outputs, parameters]
    else:
        pairs = zip(parts_of(space, outputs), taken.unbind(-1), strict=True)
        theirs = sum((part.log_prob(one) + part.entropy() for part, one in pairs), torch.zeros(6))
        of = [outputs]
    weights = torch.linspace(-1.0, 2.0, 6)
    got = torch.autograd.grad((weights * ours).sum(), of)
    expected = torch.autograd.grad((weights * theirs).sum(), of)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def drawn(actions: Any, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    out = np.empty((*shape, actions.noise_size), np.float32)
    actions.noise(np.random.default_rng(seed), out)
    return out


@pytest.mark.parametrize("kind", ["discrete", "one choice", "multi-discrete"])
def test_choices_are_made_as_often_as_they_are_likely(kind: str) -> None:
    space, n = SPACES[kind], 200_000
    actions = actions_of(space)
    outputs, parameters = some_outputs(space)
    noise = torch.from_numpy(drawn(actions, n))
    taken = actions.sample(outputs.expand(n, -1), parameters, noise)
    assert taken.dtype == torch.float32 and taken.shape == (n, actions.width)
    for part, chosen in zip(parts_of(space, outputs), taken.unbind(-1), strict=True):
        counts = torch.bincount(chosen.long(), minlength=len(part.probs)) / n
        bound = 5 * (part.probs * (1 - part.probs) / n).sqrt() + 1e-9
        assert ((counts - part.probs).abs() <= bound).all()


def test_several_choices_are_independent() -> None:
    space, n = spaces.MultiDiscrete([2, 3]), 200_000
    actions = actions_of(space)
    outputs, parameters = some_outputs(space)
    taken = actions.sample(outputs.expand(n, -1), parameters, torch.from_numpy(drawn(actions, n)))
    first, second = (part.probs for part in parts_of(space, outputs))
    both = torch.bincount((3 * taken[:, 0] + taken[:, 1]).long(), minlength=6).view(2, 3) / n
    torch.testing.assert_close(both, torch.outer(first, second), rtol=0, atol=5e-3)


def test_real_numbers_have_the_mean_and_spread_they_should() -> None:
    space, n = SPACES["continuous"], 200_000
    actions = actions_of(space)
    outputs, parameters = some_outputs(space)
    taken = actions.sample(outputs.expand(n, -1), parameters, torch.from_numpy(drawn(actions, n)))
    z = (taken - outputs) / parameters.exp()
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=0.012)
    torch.testing.assert_close(z.T.cov(), torch.eye(3), rtol=0, atol=0.02)
    below = torch.stack([(z < edge).float().mean(0) for edge in (-2.0, -1.0, 0.0, 1.0, 2.0)])
    edges = Normal(0.0, 1.0).cdf(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    torch.testing.assert_close(below, edges.unsqueeze(1).expand(5, 3), rtol=0, atol=6e-3)


class Extremes:
    """A generator at the ends of what one draws, 0 included."""

    def random(self, out: Any, dtype: Any) -> None:
        out[:] = np.resize([0.0, 1.0 - 2.0**-24], out.shape)


def test_noise_of_choices_is_always_finite() -> None:
    out = np.empty((3, 4), np.float32)
    with np.errstate(all="raise"):
        Discrete(spaces.Discrete(4)).noise(Extremes(), out)  # type: ignore[arg-type]
    assert np.isfinite(out).all()


@pytest.mark.parametrize("kind", SPACES)
def test_the_mode_is_the_likeliest_action(kind: str) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 6)
    mode = actions.mode(outputs, parameters)
    assert mode.dtype == torch.float32 and mode.shape == (6, actions.width)
    best = actions.log_prob(outputs, parameters, mode)
    for seed in range(20):
        noise = torch.from_numpy(drawn(actions, 6, seed=seed))
        other = actions.sample(outputs, parameters, noise)
        assert (actions.log_prob(outputs, parameters, other) <= best + 1e-6).all()


# What environments get


def test_continuous_actions_are_clipped_to_their_bounds() -> None:
    space = spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, 0.5]), dtype=np.float64)
    given = np.array([[-3.0, -1e6], [5.0, 7.0], [0.25, 0.125]], np.float32)
    got = actions_of(space).to_environment(given)
    assert got.dtype == np.float64
    assert got.tolist() == [[-1.0, -1e6], [2.0, 0.5], [0.25, 0.125]]
    assert given[0].tolist() == [-3.0, -1e6]  # what the policy drew stays as it is


@pytest.mark.parametrize("kind", SPACES)
def test_environments_accept_what_they_get(kind: str) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 50)
    taken = actions.sample(outputs, parameters, torch.from_numpy(drawn(actions, 50)))
    got = actions.to_environment(taken.numpy())
    assert len(got) == 50
    assert all(action in space for action in got)
    assert got.ndim == (1 if isinstance(space, spaces.Discrete) else 2)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([2, 3], start=[0, 1]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.Box(0, 255, (3,), np.uint8),
        spaces.Box(-1.0, 1.0, (2, 2)),
        spaces.Box(-1.0, 1.0, ()),
        spaces.Dict({"a": spaces.Discrete(2)}),
    ],
    ids=str,
)
def test_other_actions_are_refused_in_one_line(space: spaces.Space[Any]) -> None:
    with pytest.raises(UsageError, match="actions: expected Discrete, ") as error:
        actions_of(space)
    assert "\n" not in str(error.value)


def test_divergence_is_torchs() -> None:
    """KL(old || new) against ``torch.distributions.kl_divergence``."""
    source = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 6, 5, generator=source)
    discrete = Discrete(spaces.MultiDiscrete([2, 3]))
    none = torch.zeros(0)
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=old[:, own]),
            torch.distributions.Categorical(logits=new[:, own]),
        )
        for own in (slice(0, 2), slice(2, 5))
    )
    torch.testing.assert_close(discrete.divergence(old, none, new, none), expected)
    gaussian = Gaussian(spaces.Box(-1, 1, (5,), np.float32))
    before, after = torch.randn(2, 5, generator=source)
    apart = torch.distributions.kl_divergence(
        torch.distributions.Normal(old, before.exp()), torch.distributions.Normal(new, after.exp())
    ).sum(-1)
    torch.testing.assert_close(gaussian.divergence(old, before, new, after), apart)
