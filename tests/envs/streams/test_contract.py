"""What every stream promises, held against all kinds of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clrl.envs.streams.base import Stream
from clrl.envs.streams.data import Dataset
from clrl.envs.streams.permuted import InputPermuted, LabelPermuted
from clrl.envs.streams.regression import SlowRegression
from clrl.envs.streams.tasks import Months, PermutedTasks, Rotated, Split
from clrl.errors import UsageError

TASK = 7
# 11 rows, so that passes and tasks end at different places; all 66 numbers differ.
TINY = Dataset(
    np.arange(66, dtype=np.float32).reshape(11, 6), np.arange(11, dtype=np.int64) % 5, num_classes=5
)
STREAMS: dict[str, Callable[[int], Stream]] = {
    "input-permuted": lambda seed: InputPermuted(seed, TINY, task_length=TASK),
    "label-permuted": lambda seed: LabelPermuted(seed, TINY, task_length=TASK),
    "flip-one": lambda seed: SlowRegression(seed, task_length=TASK),
    "redraw": lambda seed: SlowRegression(seed, task_length=TASK, change="redraw"),
    "split": lambda seed: Split(seed, "digits", task_length=TASK),
    "permuted-tasks": lambda seed: PermutedTasks(seed, "digits", task_length=TASK),
    "rotated": lambda seed: Rotated(seed, "digits", task_length=TASK),
    "months": lambda seed: Months(seed, "digits", base_length=TASK, task_length=TASK),
}
every_stream = pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)


Examples = tuple[NDArray[Any], NDArray[Any]]


def same(one: Examples, two: Examples) -> bool:
    return np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def joined(pieces: list[Examples]) -> Examples:
    return np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces])


@every_stream
def test_shapes_and_types(make: Callable[[int], Stream]) -> None:
    stream = make(0)
    for n in (0, 1, 5, 40):
        x, y = stream.next(n)
        assert x.shape == (n, stream.input_size) and x.dtype == np.float32
        if stream.kind == "classification":
            assert y.shape == (n,) and y.dtype == np.int64
            assert ((0 <= y) & (y < stream.num_outputs)).all()
        else:
            assert y.shape == (n, stream.num_outputs) and y.dtype == np.float32


@every_stream
@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 30), max_size=8), seed=st.integers(0, 2**40))
def test_how_it_is_cut_does_not_matter(
    make: Callable[[int], Stream], cuts: list[int], seed: int
) -> None:
    stream = make(seed)
    pieces = [stream.next(n) for n in cuts] + [stream.next(1)]
    whole = make(seed).next(sum(cuts) + 1)
    assert stream.position == sum(cuts) + 1
    assert same(
        (np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces])), whole
    )


@every_stream
@settings(deadline=None, max_examples=40)
@given(
    # Any position, and often one exactly at a task's or a pass's boundary.
    position=st.one_of(st.integers(0, 100), st.sampled_from([0, TASK, 11, 2 * TASK, 22, 77])),
    elsewhere=st.integers(0, 60),
)
def test_state_restores_the_future(
    make: Callable[[int], Stream], position: int, elsewhere: int
) -> None:
    stream = make(3)
    stream.next(position)
    state = json.loads(json.dumps(stream.state_dict()))
    other = make(3)
    other.next(elsewhere)
    other.probe(2)
    other.load_state_dict(state)
    assert (other.position, other.task) == (position, position // TASK)
    assert other.state_dict() == state
    np.testing.assert_array_equal(other.probe(4), stream.probe(4))
    assert same(stream.next(40), other.next(40))


@every_stream
def test_a_state_is_a_copy(make: Callable[[int], Stream]) -> None:
    stream = make(3)
    stream.next(5)
    state = stream.state_dict()
    future = stream.next(40)
    stream.load_state_dict(state)
    assert same(stream.next(40), future)
    stream.load_state_dict(state)
    assert same(stream.next(40), future)


@every_stream
def test_task_and_position(make: Callable[[int], Stream]) -> None:
    stream = make(0)
    seen = []
    for _ in range(15):
        seen.append((stream.position, stream.task))
        stream.next(1)
    assert seen == [(i, 0 if i < 7 else 1 if i < 14 else 2) for i in range(15)]


@every_stream
def test_seeds(make: Callable[[int], Stream]) -> None:
    assert same(make(5).next(50), make(5).next(50))
    firsts = [make(seed).next(50) for seed in range(6)]
    for i, one in enumerate(firsts):
        for two in firsts[:i]:
            assert not np.array_equal(one[0], two[0])
            assert not np.array_equal(one[1], two[1])


@every_stream
def test_streams_do_not_share_anything(make: Callable[[int], Stream]) -> None:
    alone = make(1).next(60)
    one, other = make(1), make(2)
    pieces = []
    for _ in range(6):
        pieces.append(one.next(10))
        other.next(7)
    assert same(
        (np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces])), alone
    )


@every_stream
def test_probe_disturbs_nothing_and_repeats_within_a_task(make: Callable[[int], Stream]) -> None:
    disturbed, left_alone = make(4), make(4)
    for _ in range(12):
        first = disturbed.probe(6)
        np.testing.assert_array_equal(first, disturbed.probe(6))
        assert disturbed.position == left_alone.position
        assert same(disturbed.next(3), left_alone.next(3))


@every_stream
def test_probe_is_of_the_task_of_the_next_example(make: Callable[[int], Stream]) -> None:
    # At the end of task 0 the next example is of task 1; the inputs drawn differ by task.
    stream, ahead = make(4), make(4)
    before = stream.probe(6)
    stream.next(TASK)
    ahead.next(TASK + 3)
    np.testing.assert_array_equal(stream.probe(6), ahead.probe(6))
    assert not np.array_equal(stream.probe(6), before)


@every_stream
def test_fill_writes_what_next_gives(make: Callable[[int], Stream]) -> None:
    reference, stream = make(9), make(9)
    x, y = reference.next(25)
    # Buffers of two streams side by side: neither slice is contiguous.
    inputs = np.full((25, 2, stream.input_size), np.nan, np.float32)
    targets = np.full((25, 2, *y.shape[1:]), -1, y.dtype)
    stream.fill(inputs[:, 0], targets[:, 0])
    np.testing.assert_array_equal(inputs[:, 0], x)
    np.testing.assert_array_equal(targets[:, 0], y)
    assert np.isnan(inputs[:, 1]).all() and (targets[:, 1] == -1).all()
    assert stream.position == 25


@every_stream
def test_what_is_handed_out_belongs_to_the_caller(make: Callable[[int], Stream]) -> None:
    stream, reference = make(2), make(2)
    for _ in range(4):
        x, y = stream.next(9)
        probe = stream.probe(4)
        assert same((x, y), reference.next(9))
        x[:], y[:], probe[:] = 99, 99, 99


def test_one_seed_one_task_length() -> None:
    with pytest.raises(UsageError, match="task_length: expected an integer >= 1, got 0"):
        InputPermuted(0, TINY, task_length=0)
    with pytest.raises(UsageError, match="seed: expected an integer >= 0, got -1"):
        InputPermuted(-1, TINY, task_length=1)
