"""Random numbers for lanes, read in blocks."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clrl.envs.changes.base import Host, Noise
from clrl.errors import UsageError

Kind = Literal["normal", "uniform"]
PURPOSE = "test"
ALL = slice(None)


class SmallBlocks(Noise):
    """So that blocks end often."""

    _BLOCK = 7


def noise(
    kind: Kind = "normal",
    size: int = 3,
    *,
    lanes: int = 2,
    seeds: tuple[int, ...] = (5,),
    worlds: int | None = None,
    small: bool = True,
) -> Noise:
    """Noise for worlds of `lanes` lanes, as many as have seeds unless told."""
    worlds = len(seeds) if worlds is None else worlds
    space = spaces.Box(-1, 1, (size,))
    host = Host(gym.Env(), lanes * worlds, worlds, space, space)
    made = (SmallBlocks if small else Noise)(host, kind, size)
    for world, seed in enumerate(seeds):
        made.seed(world, seed, PURPOSE)
    return made


def stream(kind: Kind, seed: int, n: int) -> NDArray[np.float64]:
    """A world's first n numbers, all at once."""
    return noise(kind, n + 1, lanes=1, seeds=(seed,), small=False).take(ALL)[0, :n]


kinds = st.sampled_from(["normal", "uniform"])
many_kinds = pytest.mark.parametrize("kind", ["normal", "uniform"])
takes = st.lists(st.one_of(st.none(), st.lists(st.booleans(), min_size=6, max_size=6)), max_size=25)


def lanes_of(taken: list[bool] | None) -> Any:
    return ALL if taken is None else np.array(taken)


@settings(deadline=None, max_examples=150)
@given(kind=kinds, size=st.integers(1, 20), worlds=st.sampled_from([1, 2, 3, 6]), taken=takes)
def test_each_world_reads_its_own_stream(
    kind: Kind, size: int, worlds: int, taken: list[list[bool] | None]
) -> None:
    each = 6 // worlds
    made = noise(kind, size, lanes=each, seeds=tuple(range(worlds)))
    read: list[list[float]] = [[] for _ in range(worlds)]
    for one in taken:
        numbers = made.take(lanes_of(one))
        chosen = [lane for lane in range(6) if one is None or one[lane]]
        assert numbers.shape == (len(chosen), size) and numbers.dtype == np.float64
        # Lanes of a world read one after the other.
        for lane, row in zip(chosen, numbers.tolist(), strict=True):
            read[lane // each] += row
    for world in range(worlds):
        assert read[world] == stream(kind, world, len(read[world])).tolist()


@many_kinds
@pytest.mark.parametrize("sizes", [[4096, 1], [1, 4095, 1], [4095, 2], [10_000], [1000] * 9])
def test_how_it_is_cut_does_not_matter(kind: Kind, sizes: list[int]) -> None:
    total = sum(sizes)
    expected = stream(kind, 5, total)
    for small in (False, True):
        made = noise(kind, 1, lanes=total, small=small)
        pieces = []
        for n in sizes:
            pieces.append(made.take(np.arange(total) < n))
        assert np.concatenate(pieces).ravel().tobytes() == expected.tobytes()


@many_kinds
def test_a_stream_depends_on_seed_purpose_and_kind_only(kind: Kind) -> None:
    expected = stream(kind, 5, 20)
    assert np.array_equal(stream(kind, 5, 20), expected)
    assert not np.isin(stream(kind, 6, 20), expected).any()
    other = noise(kind, 20, lanes=1, seeds=(5,))
    other.seed(0, 5, "other")
    assert not np.isin(other.take(ALL), expected).any()
    assert len(np.unique(expected)) == 20
    assert not np.isin(stream("normal", 5, 20), stream("uniform", 5, 20)).any()


@many_kinds
def test_a_new_seed_begins_one_world_anew(kind: Kind) -> None:
    made, other = noise(kind, seeds=(1, 2)), noise(kind, seeds=(1, 2))
    for n in range(5):
        made.take(ALL)
        other.take(ALL)
        made.seed(0, 10 + n, PURPOSE)
        numbers, expected = made.take(ALL), other.take(ALL)
        assert numbers[:2].ravel().tobytes() == stream(kind, 10 + n, 6).tobytes()
        assert numbers[2:].tobytes() == expected[2:].tobytes()


@many_kinds
def test_what_is_done_with_numbers_does_not_matter(kind: Kind) -> None:
    made = noise(kind, lanes=1)
    read = []
    for _ in range(6):
        numbers = made.take(ALL)
        read += numbers[0].tolist()
        numbers[:] = np.nan
    assert read == stream(kind, 5, 18).tolist()


@pytest.mark.parametrize("worlds", [1, 2])
def test_no_numbers_before_the_seed(worlds: int) -> None:
    made = noise(seeds=(5,) * (worlds - 1), worlds=worlds)
    with pytest.raises(UsageError, match="reset") as caught:
        made.take(ALL)
    assert "\n" not in str(caught.value)
    assert made.take(np.zeros(2 * worlds, np.bool_)).shape == (0, 3)


def test_distributions() -> None:
    n = 40_000
    close = 4 / math.sqrt(n)
    normal, uniform = stream("normal", 5, n), stream("uniform", 5, n)
    assert abs(normal.mean()) < close and abs(normal.std() - 1) < close
    assert abs((np.abs(normal) < 1).mean() - 0.6827) < close
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert abs(uniform.mean() - 0.5) < close and abs(uniform.var() - 1 / 12) < close
    assert abs((uniform < 0.25).mean() - 0.25) < close
    for numbers in (normal, uniform):
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < close


# --------------------------------------------------------------------------------------
# State


@settings(deadline=None, max_examples=150)
@given(
    kind=kinds,
    size=st.integers(1, 9),
    begun=st.integers(0, 2),
    past=takes,
    future=takes,
    used=st.booleans(),
)
def test_restored_noise_goes_on_as_it_would_have(
    kind: Kind,
    size: int,
    begun: int,
    past: list[list[bool] | None],
    future: list[list[bool] | None],
    used: bool,
) -> None:
    made = noise(kind, size, lanes=3, seeds=(1, 2)[:begun], worlds=2)

    def reachable(one: list[bool] | None) -> Any:
        """Only lanes of worlds that have begun."""
        lanes = np.array(one or [True] * 6)
        lanes[3 * begun :] = False
        return lanes

    for one in past:
        made.take(reachable(one))
    saved = made.state_dict()
    text = json.dumps(saved, allow_nan=False)
    other = noise(kind, size, lanes=3, seeds=(3, 4) if used else (), worlds=2)
    if used:
        other.take(ALL)
    other.load_state_dict(json.loads(text))
    assert json.dumps(other.state_dict()) == text
    for one in future:
        assert other.take(reachable(one)).tobytes() == made.take(reachable(one)).tobytes()
    assert other.state_dict() == made.state_dict()
    assert json.dumps(saved) == text  # not touched by what came after
    if begun < 2:
        with pytest.raises(UsageError):
            other.take(ALL)


@many_kinds
@pytest.mark.parametrize("read", [0, 1, 6, 7, 8, 13, 14, 15])
def test_restored_at_the_edges_of_blocks(kind: Kind, read: int) -> None:
    made = noise(kind, 1, lanes=20)
    made.take(np.arange(20) < read)
    other = noise(kind, 1, lanes=20, seeds=(), worlds=1)
    other.load_state_dict(json.loads(json.dumps(made.state_dict())))
    expected = stream(kind, 5, read + 20)[read:]
    assert other.take(ALL).ravel().tobytes() == expected.tobytes()
    assert made.take(ALL).ravel().tobytes() == expected.tobytes()
