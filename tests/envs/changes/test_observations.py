from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from clrl.envs import (
    Cycle,
    EverySteps,
    MaskObservation,
    Never,
    NoisyObservation,
    NonStationary,
    NonStationaryVector,
    Normal,
    OffsetObservation,
    PermuteObservation,
    RandomMask,
    RandomPermutation,
    RandomWalk,
    RotateObservation,
    ScaleObservation,
    Schedule,
    Uniform,
)
from clrl.envs.changes.base import Change, Noise
from clrl.errors import UsageError

F32 = np.float32


class Shows(gym.Env[Any, Any]):
    """Shows given observations in turn."""

    def __init__(self, space: spaces.Space[Any], *shown: Any) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(2)
        self.shown = shown

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.shown[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.shown[self.t % len(self.shown)], 1.0, False, False, {}


def floats(*shape: int, low: float = -np.inf, high: float = np.inf, dtype: Any = F32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


def look(
    change: Change, space: spaces.Space[Any], shown: list[Any], values: list[Any], n: int = 0
) -> list[Any]:
    """What is seen when each observation is shown under the value beside it.

    Each of `values` is at work for one step; the first for the reset too, whose observation is
    left out unless n = 1.
    """
    env = NonStationary(Shows(space, *shown), change, Schedule(EverySteps(1), Cycle(values)))
    seen = [env.reset(seed=0)[0]]
    for _ in range(n or len(values)):
        seen.append(env.step(0)[0])
    return seen


def shown_once(change: Change, shown: Any, value: Any, space: spaces.Space[Any]) -> Any:
    env = NonStationary(Shows(space, shown), change, Schedule(Never(), Cycle([value])))
    return env.reset(seed=0)[0]


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, dtype included."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


O4 = np.array([1.0, 2.0, 3.0, 5.0], F32)

BY_HAND = {
    "permute": (PermuteObservation(), [2, 0, 3, 1], [3, 1, 5, 2]),
    "offset": (OffsetObservation(), [0.5, -1, 0, 10], [1.5, 1, 3, 15]),
    "offset one number": (OffsetObservation(), 0.25, [1.25, 2.25, 3.25, 5.25]),
    "scale": (ScaleObservation(), [2, -1, 0, 0.5], [2, -2, 0, 2.5]),
    "rotate": (RotateObservation(), [np.pi / 2, np.pi], [-2, 1, -3, -5]),
    "mask": (MaskObservation(), [True, False, False, True], [0, 2, 3, 0]),
    "noise of no size": (NoisyObservation(), 0, [1, 2, 3, 5]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    change, value, expected = BY_HAND[name]
    seen = shown_once(change, O4, value, floats(4))
    assert seen.dtype == F32 and seen.shape == (4,)
    np.testing.assert_allclose(seen, np.array(expected, F32), atol=1e-6)
    if "rotate" not in name:
        assert same(seen, np.array(expected, F32))


def test_each_step_is_seen_under_its_own_value() -> None:
    values = [[0, 0], [10, 20], [100, 200]]
    shown = [np.array([t, t], F32) for t in range(4)]
    seen = look(OffsetObservation(), floats(2), shown, values)
    # The reset and the first step belong to the first value, the second step to the second.
    np.testing.assert_array_equal(seen, [[0, 0], [1, 1], [12, 22], [103, 203]])


def test_arrays_are_read_row_by_row() -> None:
    shown = np.arange(6, dtype=F32).reshape(2, 3)
    space = floats(2, 3, low=0, high=5)
    permuted = shown_once(PermuteObservation(), shown, [5, 4, 3, 2, 1, 0], space)
    np.testing.assert_array_equal(permuted, [[5, 4, 3], [2, 1, 0]])
    rotated = shown_once(RotateObservation(), shown, [np.pi, 0, np.pi], space)
    np.testing.assert_allclose(rotated, [[0, -1, 2], [3, -4, -5]], atol=1e-6)
    offset = shown_once(OffsetObservation(), shown, [[1, 0, 0], [0, 0, 1]], space)
    np.testing.assert_array_equal(offset, [[1, 1, 2], [3, 4, 6]])
    hidden = shown_once(MaskObservation(), shown, [False, True, False], space)  # of every row
    np.testing.assert_array_equal(hidden, [[0, 0, 2], [3, 0, 5]])


@pytest.mark.parametrize("start", [0, 5, -2])
def test_whole_numbers_take_each_others_names(start: int) -> None:
    space = spaces.Discrete(3, start=start)
    for shown, expected in enumerate([2, 0, 1]):
        seen = shown_once(PermuteObservation(), start + shown, [2, 0, 1], space)
        assert seen == start + expected and np.shape(seen) == ()
        assert space.contains(seen)


def test_images_keep_their_dtype() -> None:
    space = spaces.Box(0, 255, (2, 2, 3), np.uint8)
    shown = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    permuted = shown_once(PermuteObservation(), shown, np.arange(12)[::-1], space)
    assert same(permuted, shown.ravel()[::-1].reshape(2, 2, 3))
    hidden = shown_once(MaskObservation(), shown, True, space)
    assert same(hidden, np.zeros((2, 2, 3), np.uint8))


NEUTRAL: dict[str, tuple[Change, Any]] = {
    "permute": (PermuteObservation(), RandomPermutation()),
    "offset": (OffsetObservation(), Normal(0, 1)),
    "scale": (ScaleObservation(), Uniform(0.5, 2)),
    "rotate": (RotateObservation(), Uniform(-1, 1)),
    "mask": (MaskObservation(), RandomMask(0.5)),
    "noise": (NoisyObservation(), Uniform(0, 1)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NEUTRAL)
def test_unchanged_changes_nothing_to_the_bit(name: str, dtype: Any) -> None:
    change, to = NEUTRAL[name]
    rng = np.random.default_rng(0)
    shown = [(rng.standard_normal(5) * 10.0 ** rng.integers(-30, 30)).astype(dtype) for _ in "abc"]
    env = NonStationary(
        Shows(floats(5, dtype=dtype), *shown), change, Schedule(Never(), to, start="unchanged")
    )
    assert same(env.reset(seed=0)[0], shown[0])
    assert same(env.step(0)[0], shown[1])
    assert same(env.step(0)[0], shown[2])


@given(st.permutations(range(5)))
def test_the_inverse_permutation_gives_back(p: list[int]) -> None:
    shown = np.array([3, 1, 4, 1.5, 9], F32)
    env: Any = Shows(floats(5), shown)
    for value in (p, np.argsort(p)):
        env = NonStationary(env, PermuteObservation(), Schedule(Never(), Cycle([value])))
    assert same(env.reset(seed=0)[0], shown)


@given(
    st.lists(st.floats(-100, 100), min_size=5, max_size=5),
    st.lists(st.floats(-10, 10), min_size=2, max_size=2),
)
def test_rotation_keeps_lengths_and_turns_back(shown: list[float], angles: list[float]) -> None:
    o = np.array(shown)
    env: Any = Shows(floats(5, dtype=np.float64), o)
    env = NonStationary(env, RotateObservation(), Schedule(Never(), Cycle([angles])))
    seen = env.reset(seed=0)[0]
    assert np.hypot(seen[0], seen[1]) == pytest.approx(np.hypot(o[0], o[1]), rel=1e-9, abs=1e-9)
    assert np.hypot(seen[2], seen[3]) == pytest.approx(np.hypot(o[2], o[3]), rel=1e-9, abs=1e-9)
    assert seen[4] == o[4]
    back = NonStationary(env, RotateObservation(), Schedule(Never(), Cycle([-np.array(angles)])))
    np.testing.assert_allclose(back.reset(seed=0)[0], o, rtol=1e-9, atol=1e-9)


def test_a_quarter_turn_is_anticlockwise() -> None:
    seen = shown_once(RotateObservation(), np.array([1, 0], F32), np.pi / 2, floats(2))
    np.testing.assert_allclose(seen, [0, 1], atol=1e-7)


# Spaces

numbers = st.floats(-1e6, 1e6)


@st.composite
def boxes(draw: Any) -> tuple[spaces.Box, list[Any]]:
    """A box of 4 entries, bounded or not, and observations from it: corners too."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    ends = st.one_of(numbers, st.sampled_from([0.0, 1.0, 0.1, 1e30]))
    low, high = [], []
    for _ in range(4):
        a, b = sorted((draw(ends) + 0.0, draw(ends) + 0.0))  # no -0.0
        low.append(draw(st.sampled_from([a, a, -np.inf])))
        high.append(draw(st.sampled_from([b, b, np.inf])))
    space = spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)
    space.seed(draw(st.integers(0, 1000)))
    inside = [space.sample() for _ in range(3)]
    if space.is_bounded("both"):
        inside += [space.low, space.high, np.where([1, 0, 1, 0], space.low, space.high)]
    return space, inside


VALUES: dict[str, tuple[Change, Any]] = {
    "permute": (PermuteObservation(), st.permutations(range(4))),
    "offset": (OffsetObservation(), st.lists(numbers, min_size=4, max_size=4)),
    "scale": (ScaleObservation(), st.lists(numbers, min_size=4, max_size=4)),
    "rotate": (RotateObservation(), st.lists(st.floats(-7, 7), min_size=2, max_size=2)),
    "mask": (MaskObservation(), st.lists(st.booleans(), min_size=4, max_size=4)),
    "noise": (NoisyObservation(), st.lists(st.floats(0, 10), min_size=4, max_size=4)),
}


@pytest.mark.parametrize("name", VALUES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_space_holds_all_that_is_seen(name: str, data: st.DataObject) -> None:
    change, values = VALUES[name]
    space, inside = data.draw(boxes())
    cycle = Cycle(data.draw(st.lists(values, min_size=1, max_size=3)))
    env = NonStationary(Shows(space, *inside), change, Schedule(EverySteps(1), cycle))
    seen = [env.reset(seed=0)[0], *(env.step(0)[0] for _ in range(3 * len(inside)))]
    for one in seen:
        assert one.dtype == space.dtype
        assert env.observation_space.contains(one), (one, env.observation_space)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_space_holds_a_corner_turned_onto_an_axis(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        high = np.abs(rng.standard_normal(2)).astype(dtype)
        space = spaces.Box(-high, high, dtype=dtype)
        angle = -np.arctan2(float(high[1]), float(high[0]))
        env = NonStationary(
            Shows(space, high), RotateObservation(), Schedule(Never(), Cycle([angle]))
        )
        seen = env.reset(seed=0)[0]
        assert env.observation_space.contains(seen), (high, seen - env.observation_space.high)


def test_bounds_are_not_wider_than_needed() -> None:
    space = floats(2, low=-1, high=1)

    def bounds(change: Change, to: Any, start: Any = "drawn") -> tuple[Any, Any]:
        box: Any = NonStationary(
            Shows(space, np.zeros(2, F32)), change, Schedule(Never(), to, start=start)
        ).observation_space
        return box.low, box.high

    close: Any = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(
        bounds(OffsetObservation(), Uniform([1, -2], [3, 0])), [[0, -3], [4, 1]], **close
    )
    np.testing.assert_allclose(
        bounds(OffsetObservation(), Uniform(1, 3), "unchanged"), [[-1, -1], [4, 4]], **close
    )
    np.testing.assert_allclose(
        bounds(ScaleObservation(), Uniform(2, 3)), [[-3, -3], [3, 3]], **close
    )
    np.testing.assert_allclose(
        bounds(ScaleObservation(), Uniform(0, 0.5), "unchanged"), [[-1, -1], [1, 1]], **close
    )
    reach = np.sqrt(2)
    np.testing.assert_allclose(
        bounds(RotateObservation(), Uniform(0, 1)), [[-reach, -reach], [reach, reach]], **close
    )
    np.testing.assert_allclose(
        bounds(NoisyObservation(), Cycle([[0, 1]])), [[-1, -np.inf], [1, np.inf]], **close
    )
    np.testing.assert_allclose(
        bounds(OffsetObservation(), Normal(0, [0, 1])), [[-1, -np.inf], [1, np.inf]], **close
    )


def test_a_mask_widens_the_bounds_to_zero_where_it_can_hide() -> None:
    space = spaces.Box(np.array([1, 1, -5], F32), np.array([2, 2, -3], F32))
    env = NonStationary(
        Shows(space, np.array([1, 2, -4], F32)),
        MaskObservation(),
        Schedule(Never(), Cycle([[True, False, True]])),
    )
    box: Any = env.observation_space
    np.testing.assert_array_equal(box.low, [0, 1, -5])
    np.testing.assert_array_equal(box.high, [2, 2, 0])


def test_a_permuted_box_has_the_widest_bounds() -> None:
    space = spaces.Box(np.array([-1, 0], F32), np.array([1, 7], F32))
    env = NonStationary(
        Shows(space, np.zeros(2, F32)), PermuteObservation(), Schedule(Never(), RandomPermutation())
    )
    assert env.observation_space == floats(2, low=-1, high=7)


@pytest.mark.parametrize("name", ["offset", "scale", "rotate", "noise"])
def test_bounds_as_wide_as_the_dtype_go_without_warnings(name: str) -> None:
    change, to = NEUTRAL[name]
    most = np.finfo(F32).max
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = NonStationary(
            Shows(floats(4, low=-most, high=most), O4), change, Schedule(Never(), to)
        )
        assert env.observation_space.contains(env.reset(seed=0)[0])


# Noise


def noise_of(env: Any, n: int, **reset: Any) -> Any:
    """What is seen of an environment that shows zeros, [n, ...]."""
    seen = [env.reset(**reset)[0]]
    action = env.action_space.sample() if hasattr(env, "num_envs") else 0
    while len(seen) < n:
        seen.append(env.step(action)[0])
    return np.array(seen)


def noisy(value: Any, size: int = 3) -> NonStationary:
    return NonStationary(
        Shows(floats(size), np.zeros(size, F32)),
        NoisyObservation(),
        Schedule(Never(), Cycle([value])),
    )


def test_noise_is_normal_of_the_given_size() -> None:
    drawn = noise_of(noisy([1, 0, 0.1]), 6000, seed=0)
    n = len(drawn)
    assert (drawn[:, 1] == 0).all()
    for column, std in ((0, 1.0), (2, 0.1)):
        x = drawn[:, column].astype(np.float64)
        assert abs(x.mean()) < 4 * std / np.sqrt(n)
        assert x.std() == pytest.approx(std, rel=4 / np.sqrt(2 * n))
        assert np.mean(np.abs(x) < std) == pytest.approx(0.6827, abs=0.025)
        assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 4 / np.sqrt(n)
    assert len(np.unique(drawn[:, 0])) > 0.99 * n


def test_noise_is_the_seeds() -> None:
    first, again, other = (noise_of(noisy(1), 20, seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not np.isin(first, other).any()


def test_noise_goes_on_over_resets_and_begins_anew_with_a_seed() -> None:
    env = noisy(1)
    first = noise_of(env, 10, seed=1)
    assert not np.isin(noise_of(env, 10), first).any()
    assert same(noise_of(env, 10, seed=1), first)


def test_noise_scales_with_its_size_alone() -> None:
    """The same numbers are drawn whatever the sizes are, none included."""
    env = NonStationary(
        Shows(floats(2), np.zeros(2, F32)),
        NoisyObservation(),
        Schedule(EverySteps(1), Cycle([[1, 1], [0, 0], [4, 2]])),
    )
    drawn, ones = noise_of(env, 9, seed=3), noise_of(noisy(1, size=2), 9, seed=3)
    sizes = np.array([[1, 1], *([[1, 1], [0, 0], [4, 2]] * 3)], F32)[:9]
    np.testing.assert_allclose(drawn, sizes * ones, rtol=1e-6)


def noisy_lanes(n: int, worlds: int) -> NonStationaryVector:
    lanes = gym.vector.SyncVectorEnv([lambda: Shows(floats(3), np.zeros(3, F32))] * n)
    return NonStationaryVector(
        lanes, NoisyObservation(), Schedule(Never(), Cycle([1])), worlds=worlds
    )


@pytest.mark.parametrize("worlds", [1, 2, 4])
def test_lanes_have_noise_of_their_own(worlds: int) -> None:
    drawn = noise_of(noisy_lanes(4, worlds), 500, seed=[0, 1, 2, 3])
    assert drawn.shape == (500, 4, 3) and drawn.dtype == F32
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    between = np.corrcoef(drawn.transpose(1, 2, 0).reshape(12, 500))
    assert np.abs(between - np.eye(12)).max() < 4.5 / np.sqrt(500)


def test_a_worlds_noise_does_not_depend_on_the_others() -> None:
    both = noise_of(noisy_lanes(4, 2), 30, seed=[5, 6, 7, 8])
    alone = noise_of(noisy_lanes(2, 1), 30, seed=[7, 8])
    assert same(both[:, 2:], alone)
    assert same(noise_of(noisy_lanes(4, 2), 30, seed=[9, 9, 7, 8])[:, 2:], alone)


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_noise_does_not_depend_on_how_it_is_read(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = noise_of(noisy_lanes(4, 2), 30, seed=1)
    monkeypatch.setattr(Noise, "_BLOCK", block)
    assert same(noise_of(noisy_lanes(4, 2), 30, seed=1), expected)


# Mistakes

D3 = spaces.Discrete(3)
WRONG: dict[str, tuple[Change, spaces.Space[Any], Any, str]] = {
    "offset on Discrete": (
        OffsetObservation(),
        D3,
        Normal(0, 1),
        r"OffsetObservation: expected observations in a Box of floats, got Discrete\(3\)",
    ),
    "offset on whole numbers": (
        OffsetObservation(),
        spaces.Box(0, 255, (2,), np.uint8),
        Normal(0, 1),
        "Box of floats, got Box",
    ),
    "scale on Discrete": (ScaleObservation(), D3, Normal(0, 1), "ScaleObservation: .*Box"),
    "noise on Discrete": (NoisyObservation(), D3, Uniform(0, 1), "NoisyObservation: .*Box"),
    "rotate on Discrete": (RotateObservation(), D3, Uniform(0, 1), "RotateObservation: .*Box"),
    "rotate one entry": (RotateObservation(), floats(1), Uniform(0, 1), "two entries or more"),
    "mask on Discrete": (MaskObservation(), D3, RandomMask(0.5), "MaskObservation: .*Box"),
    "permute a Dict": (
        PermuteObservation(),
        spaces.Dict({"a": D3}),
        RandomPermutation(),
        "PermuteObservation: expected a Box or Discrete",
    ),
    "too few entries": (OffsetObservation(), floats(4), Cycle([[1, 2, 3]]), "Cycle.values"),
    "bounds of another shape": (OffsetObservation(), floats(4), Uniform([1, 2], 3), "Uniform.low"),
    "an offset without end": (OffsetObservation(), floats(4), Cycle([np.inf]), "finite"),
    "no offset": (OffsetObservation(), floats(4), Cycle([np.nan]), "finite"),
    "an offset in words": (OffsetObservation(), floats(4), Cycle(["much"]), "finite"),
    "no permutation": (
        PermuteObservation(),
        floats(3),
        Cycle([[0, 1, 1]]),
        "permutation of 0 to 2",
    ),
    "permutation of others": (
        PermuteObservation(),
        D3,
        Cycle([[1, 2, 3]]),
        "permutation of 0 to 2",
    ),
    "numbers for a permutation": (PermuteObservation(), floats(3), Uniform(0, 2), "Uniform"),
    "permutation for numbers": (OffsetObservation(), floats(3), RandomPermutation(), "Permutation"),
    "numbers for a mask": (MaskObservation(), floats(3), Uniform(0, 1), "Uniform"),
    "a mask of halves": (MaskObservation(), floats(3), Cycle([0.5]), "true or false"),
    "negative noise": (NoisyObservation(), floats(3), Cycle([-1]), "numbers >= 0, got -1"),
    "noise that can be negative": (NoisyObservation(), floats(3), Uniform(-1, 1), "numbers >= 0"),
    "noise that walks": (NoisyObservation(), floats(3), RandomWalk(1, 0.1), "numbers >= 0"),
    "noise of normal size": (NoisyObservation(), floats(3), Normal(1, 0.1), "numbers >= 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    change, space, to, message = WRONG[name]
    with pytest.raises(UsageError, match=message) as error:
        NonStationary(Shows(space, None), change, Schedule(Never(), to))
    assert "\n" not in str(error.value)
