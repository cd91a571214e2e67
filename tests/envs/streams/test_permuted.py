from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from clrl.envs.streams.data import Dataset, digits, mnist
from clrl.envs.streams.permuted import (
    InputPermuted,
    LabelPermuted,
    LabelPermutedDigits,
    LabelPermutedMNIST,
    PermutedDigits,
    PermutedMNIST,
)

SIZE, WIDTH, TASK = 13, 6, 8


def tiny() -> Dataset:
    """Row r holds 10 r + (0 ... 5), so that every number says where it came from."""
    inputs = 10 * np.arange(SIZE)[:, None] + np.arange(WIDTH)
    return Dataset(inputs.astype(np.float32), np.arange(SIZE) % 4, num_classes=4)


def test_an_example_is_a_row_with_its_inputs_rearranged() -> None:
    x, y = InputPermuted(0, tiny(), task_length=TASK).next(100)
    rows = (x[:, 0] // 10).astype(int)
    np.testing.assert_array_equal(x // 10, np.tile(rows[:, None], WIDTH))
    np.testing.assert_array_equal(np.sort(x % 10, axis=1), np.tile(np.arange(WIDTH), (100, 1)))
    np.testing.assert_array_equal(y, rows % 4)


def test_one_permutation_a_task_changed_exactly_at_its_end() -> None:
    x, _ = InputPermuted(1, tiny(), task_length=TASK).next(10 * TASK)
    by_task = (x % 10).reshape(10, TASK, WIDTH)
    for task in by_task:
        assert (task == task[0]).all()
    # 6! = 720 permutations: for this seed the first ten all differ, and none is the identity.
    assert len({tuple(task[0]) for task in by_task} | {tuple(range(WIDTH))}) == 11


def test_permutation_is_what_was_applied() -> None:
    data = tiny()
    stream = InputPermuted(1, data, task_length=TASK)
    stream.next(TASK)
    np.testing.assert_array_equal(np.sort(stream.permutation), np.arange(WIDTH))
    permutation = stream.permutation
    x, _ = stream.next(TASK)
    np.testing.assert_array_equal(x % 10, np.tile(permutation, (TASK, 1)))


@pytest.mark.parametrize("kind", [InputPermuted, LabelPermuted])
def test_a_pass_holds_every_example_once_and_each_pass_has_its_order(
    kind: Callable[..., InputPermuted | LabelPermuted],
) -> None:
    x, _ = kind(2, tiny(), task_length=TASK).next(5 * SIZE)
    orders = (x[:, 0] // 10).astype(int).reshape(5, SIZE)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(SIZE), (5, 1)))
    assert len({tuple(order) for order in orders} | {tuple(range(SIZE))}) == 6


def test_order_does_not_depend_on_the_tasks() -> None:
    short, _ = InputPermuted(2, tiny(), task_length=1).next(40)
    long, _ = InputPermuted(2, tiny(), task_length=1000).next(40)
    np.testing.assert_array_equal(short[:, 0] // 10, long[:, 0] // 10)


def test_labels_are_mapped_one_to_one_within_a_task_and_inputs_left_alone() -> None:
    data = tiny()
    x, y = LabelPermuted(0, data, task_length=TASK).next(10 * TASK)
    rows = (x[:, 0] // 10).astype(int)
    np.testing.assert_array_equal(x, data.inputs[rows])
    mappings = []
    for task in range(10):
        part = slice(task * TASK, (task + 1) * TASK)
        pairs = set(zip((rows[part] % 4).tolist(), y[part].tolist(), strict=True))
        mappings.append(pairs)
        assert len({old for old, _ in pairs}) == len({new for _, new in pairs}) == len(pairs)
    # 4! = 24 mappings: ten tasks use several, and task 0 is permuted too for this seed.
    assert len({frozenset(pairs) for pairs in mappings}) > 4
    assert any(old != new for old, new in mappings[0])


def test_label_permutation_is_what_was_applied() -> None:
    stream = LabelPermuted(5, tiny(), task_length=TASK)
    stream.next(3 * TASK)
    permutation = stream.permutation
    np.testing.assert_array_equal(np.sort(permutation), np.arange(4))
    x, y = stream.next(TASK)
    np.testing.assert_array_equal(y, permutation[(x[:, 0] // 10).astype(int) % 4])


@pytest.mark.parametrize(("asked", "given"), [(5, 5), (SIZE, SIZE), (2000, SIZE)])
def test_probe_of_permuted_inputs(asked: int, given: int) -> None:
    stream = InputPermuted(3, tiny(), task_length=TASK)
    stream.next(TASK)
    probe = stream.probe(asked)
    assert probe.shape == (given, WIDTH) and probe.dtype == np.float32
    assert len(np.unique(probe[:, 0] // 10)) == given  # without replacement
    np.testing.assert_array_equal(probe % 10, np.tile(stream.permutation, (given, 1)))


def test_probe_of_permuted_labels_has_plain_inputs() -> None:
    probe = LabelPermuted(3, tiny(), task_length=TASK).probe(2000)
    np.testing.assert_array_equal(np.sort(probe[:, 0]), 10 * np.arange(SIZE))
    np.testing.assert_array_equal(probe % 10, np.tile(np.arange(WIDTH), (SIZE, 1)))


def test_probe_rows_are_not_the_rows_to_come() -> None:
    stream = InputPermuted(3, tiny(), task_length=TASK)
    assert not np.array_equal(stream.probe(SIZE)[:, 0] // 10, stream.next(SIZE)[0][:, 0] // 10)


def test_the_state_is_small() -> None:
    stream = PermutedDigits(0)
    stream.next(2000)
    assert stream.state_dict() == {"position": 2000}


def test_digits_streams() -> None:
    inputs, labels = PermutedDigits(0), LabelPermutedDigits(0)
    assert (inputs.task_length, labels.task_length) == (1500, 750)
    for stream in (inputs, labels):
        assert (stream.input_size, stream.num_outputs, stream.kind) == (64, 10, "classification")
        assert stream.dataset is digits("symmetric")
        assert stream.probe(2000).shape == (1797, 64)
    x, _ = PermutedDigits(0, task_length=10, input_range="unit").next(1797)
    assert (x.min(), x.max()) == (0, 1)
    # A permutation keeps each image's sum; a pass keeps the sum of all.
    assert x.sum(dtype=np.float64) == digits("unit").inputs.sum(dtype=np.float64)


@pytest.mark.skipif(
    not os.environ.get("CLRL_DATA"), reason="CLRL_DATA does not name a folder with MNIST"
)
def test_mnist_streams() -> None:
    inputs, labels = PermutedMNIST(0), LabelPermutedMNIST(0)
    data = mnist("symmetric", "train")
    assert inputs.dataset is labels.dataset is PermutedMNIST(1).dataset is data
    assert (inputs.task_length, labels.task_length) == (5000, 2500)
    assert inputs.probe(2000).shape == (2000, 784)
    # The same images in the same order, once with permuted pixels, once with permuted labels.
    x, y = inputs.next(5000)
    plain, renamed = labels.next(2500)
    np.testing.assert_array_equal(np.sort(x[:2500], axis=1), np.sort(plain, axis=1))
    assert not np.array_equal(x[:2500], plain)
    assert len({*zip(y[:2500].tolist(), renamed.tolist(), strict=True)}) == 10
    assert len(np.unique(x, axis=0)) > 4990  # no image comes twice within a pass
