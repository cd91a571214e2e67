"""Streams whose tasks stay testable; that they keep the contract is in test_contract.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clrl.envs.streams.data import digits
from clrl.envs.streams.tasks import (
    Months,
    PermutedTasks,
    Rotated,
    Split,
    TaskStream,
    parts,
    passes,
    rotated,
)
from clrl.errors import UsageError
from clrl.seeding import numpy_generator

TRAIN, TEST = parts("digits", "symmetric")
STREAMS: dict[str, Callable[..., TaskStream]] = {
    "split": lambda **more: Split(3, "digits", task_length=30, **more),
    "permuted": lambda **more: PermutedTasks(3, "digits", num_tasks=4, task_length=30, **more),
    "rotated": lambda **more: Rotated(3, "digits", num_tasks=3, task_length=30, **more),
    "months": lambda **more: Months(3, "digits", months=4, base_length=50, task_length=30, **more),
}
every = pytest.mark.parametrize("name", STREAMS)


def rows(x: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in x}


def test_a_fifth_of_the_digits_is_held_out() -> None:
    whole = digits("symmetric")
    assert len(TRAIN.labels) == 1438 and len(TEST.labels) == 359
    assert rows(TRAIN.inputs) | rows(TEST.inputs) == rows(whole.inputs)
    np.testing.assert_array_equal(TEST.inputs[0], whole.inputs[4])
    assert set(TEST.labels) == set(range(10))


@every
def test_tests_repeat_and_disturb_nothing(name: str) -> None:
    stream, alone = STREAMS[name](), STREAMS[name]()
    assert stream.num_tasks is not None
    for _ in range(5):
        for task in range(stream.num_tasks):
            first, again = stream.test(task, 20), STREAMS[name]().test(task, 20)
            for one, two in zip(first, again, strict=True):
                np.testing.assert_array_equal(one, two)
            assert first[0].shape == (20, 64) and first[0].dtype == np.float32
        for one, two in zip(stream.next(17), alone.next(17), strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(stream.test(0, 10**6)[1]) <= len(TEST.labels)
    with pytest.raises(UsageError, match="task: expected one from 0 to"):
        stream.test(stream.num_tasks, 5)


@every
def test_after_the_last_task_the_first_comes_again(name: str) -> None:
    stream = STREAMS[name]()
    tasks = stream.num_tasks
    assert tasks is not None
    stream.next(stream.task_start(tasks))
    assert stream.task == tasks
    x, y = stream.next(30)
    first_x, first_y = STREAMS[name]().next(30)
    assert not np.array_equal(x, first_x)
    if name == "split":
        assert set(y) == set(first_y) == {0, 1}


@every
@pytest.mark.parametrize("heads", ["domain", "task", "class"])
def test_heads(name: str, heads: str) -> None:
    stream, domain = STREAMS[name](heads=heads), STREAMS[name](heads="domain")
    tasks, classes = stream.num_tasks, 2 if name == "split" else 10
    assert tasks is not None
    assert stream.num_outputs == (classes if heads == "domain" else classes * tasks)
    assert stream.head_size == (stream.num_outputs if heads == "class" else classes)
    for task in range(tasks):
        (x, y), (domain_x, domain_y) = stream.test(task, 40), domain.test(task, 40)
        np.testing.assert_array_equal(x, domain_x)
        offset = 0 if heads == "domain" else task * classes
        np.testing.assert_array_equal(y, domain_y + offset)


def test_split_hands_out_pairs_without_repeats() -> None:
    stream = Split(0, "digits", task_length=260, heads="class")
    for task in range(5):
        x, y = stream.next(260)
        assert set(y) == {2 * task, 2 * task + 1}
        of_pair = np.flatnonzero(TRAIN.labels // 2 == task)
        assert rows(x) <= rows(TRAIN.inputs[of_pair]) and len(rows(x)) == 260
        held_out, labels = stream.test(task, 50)
        assert rows(held_out) <= rows(TEST.inputs[TEST.labels // 2 == task])
        assert set(labels) == {2 * task, 2 * task + 1}
    with pytest.raises(UsageError, match="classes_per_task: expected a divisor of 10, got 3"):
        Split(0, "digits", classes_per_task=3)


def test_permuted_tasks_have_a_permutation_each() -> None:
    stream = PermutedTasks(5, "digits", num_tasks=3, task_length=20)
    for task in range(3):
        order = numpy_generator(5, f"stream/tasks/{task}").permutation(64)
        back = np.argsort(order)
        for x in (stream.next(20)[0], stream.test(task, 30)[0]):
            assert rows(np.ascontiguousarray(x[:, back])) <= rows(TRAIN.inputs) | rows(TEST.inputs)


def test_a_quarter_turn_moves_pixels_and_any_turn_goes_back() -> None:
    image = np.arange(9, dtype=np.float32)[None] / 9
    # 0 1 2        2 5 8
    # 3 4 5   ->   1 4 7    counter-clockwise
    # 6 7 8        0 3 6
    expected = np.array([2, 5, 8, 1, 4, 7, 0, 3, 6]) / 9
    np.testing.assert_allclose(rotated(image, 90, 0.0)[0], expected, atol=1e-6)
    np.testing.assert_allclose(rotated(image, 180, 0.0)[0], image[0, ::-1], atol=1e-6)
    assert rotated(image, 360, 0.0) is image
    # Half way between pixels the value is interpolated: at 45 degrees the upper middle comes from
    # (1 - sqrt(1/2), 1 + sqrt(1/2)) from the top left, between pixels 1, 2, 4 and 5.
    s = np.sqrt(0.5)
    pixels = s * s * 2 + s * (1 - s) * 1 + (1 - s) * s * 5 + (1 - s) * (1 - s) * 4
    assert rotated(image, 45, 0.0)[0, 1] == pytest.approx(pixels / 9, abs=1e-6)
    # What comes from outside is background: a corner comes from sqrt(2) - 1 beyond the edge.
    outside = np.sqrt(2) - 1
    corner = rotated(np.ones((1, 9), np.float32), 45, -1.0)[0, 0]
    assert corner == pytest.approx((1 - outside) * 1 + outside * -1, abs=1e-6)


def test_rotated_tasks_turn_by_degrees() -> None:
    stream = Rotated(1, "digits", num_tasks=3, degrees=90, task_length=25)
    for task in range(3):
        x, _ = stream.next(25)
        back = rotated(x, -90 * task, -1.0)
        for row in back:
            assert np.abs(TRAIN.inputs - row).max(axis=1).min() < 1e-5


def test_months_drift() -> None:
    stream = Months(
        7, "digits", months=3, base_months=2, base_length=6000, task_length=6000, degrees=0.0
    )
    place = numpy_generator(7, "stream/tasks").permutation(10)
    expected = []
    for month in range(5):
        apart = [min(abs(p - month) % 10, 10 - abs(p - month) % 10) for p in place]
        weights = [np.exp(-(d**2) / (2 * 1.5**2)) for d in apart]
        expected.append(np.array(weights) / sum(weights))
        np.testing.assert_allclose(stream.shares(month), expected[-1])
    base = (expected[0] + expected[1]) / 2
    for shares in (base, *expected[2:]):
        _, y = stream.next(6000)
        got = np.bincount(y, minlength=10) / 6000
        assert np.abs(got - shares).max() < 0.025  # four standard deviations


def test_months_turn_and_the_base_is_a_mixture() -> None:
    stream = Months(
        7, "digits", months=2, base_months=2, base_length=200, task_length=50, degrees=90.0
    )

    def turns(x: np.ndarray) -> set[int]:
        found = set()
        for row in x:
            apart = [
                np.abs(TRAIN.inputs - rotated(row[None], -90 * turn, -1.0)).max(axis=1).min()
                for turn in range(4)
            ]
            found.add(int(np.argmin(apart)))
        return found

    assert turns(stream.next(200)[0]) == {0, 1}
    assert turns(stream.next(50)[0]) == {2}
    assert turns(stream.next(50)[0]) == {3}


def test_passes() -> None:
    pool = np.array([3, 5, 8])
    got = passes(pool, 7, numpy_generator(0, "x"))
    assert len(got) == 7 and sorted(got[:3]) == sorted(got[3:6]) == [3, 5, 8]
    assert len(passes(pool, 0, numpy_generator(0, "x"))) == 0


def test_tasks_of_unequal_length() -> None:
    stream = Months(0, "digits", base_length=50, task_length=30)
    assert [stream.task_at(p) for p in (0, 49, 50, 79, 80)] == [0, 0, 1, 1, 2]
    assert [stream.task_start(task) for task in range(4)] == [0, 50, 80, 110]
