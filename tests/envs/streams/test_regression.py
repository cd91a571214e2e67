from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from clrl.envs.streams.regression import SlowRegression, TargetNetwork
from clrl.errors import UsageError


def test_target_by_hand() -> None:
    """Two inputs, so a unit fires when its sum exceeds 3 * 0.7 - S = 2.1 - S.

    unit  w        b   S  threshold   sum at x = 00  01  10  11   fires at
    A     +1 -1   +1   1     1.1                  1   0   2   1   10
    B     +1 +1   +1   0     2.1                  1   2   2   3   11
    C     -1 -1   +1   2     0.1                  1   0   0  -1   00
    D     +1 +1   -1   1     1.1                 -1   0   0   1   never
    """
    network = TargetNetwork(
        weights=np.array([[1, -1], [1, 1], [-1, -1], [1, 1]], np.float32),
        biases=np.array([1, 1, 1, -1], np.float32),
        output_weights=np.array([-1, 1, 1, 1], np.float32),
        output_bias=-1.0,
    )
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    target = network(x)
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, [[1 - 1], [-1], [-1 - 1], [1 - 1]])


def test_the_official_threshold_by_hand() -> None:
    """The units of above, one bias of -1 more: S counts b / 2 in place of (1 - b) / 2.

    unit  w        b   S    threshold   sum at x = 00  01  10  11   fires at
    A     +1 -1   +1   1.5    0.6                   1   0   2   1   00 10 11
    B     +1 +1   +1   0.5    1.6                   1   2   2   3   01 10 11
    C     -1 -1   -1   1.5    0.6                  -1  -2  -2  -3   never (S = 3 in the paper: 00)
    """
    network = TargetNetwork(
        weights=np.array([[1, -1], [1, 1], [-1, -1]], np.float32),
        biases=np.array([1, 1, -1], np.float32),
        output_weights=np.array([1, 1, 1], np.float32),
        output_bias=1.0,
        threshold="official",
    )
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    np.testing.assert_array_equal(network(x), [[2], [2], [3], [3]])


@pytest.mark.parametrize(
    ("threshold", "least", "variance"), [("paper", (14, 15), 3.73), ("official", (14, 17), 2.78)]
)
def test_how_much_targets_vary(threshold: Any, least: tuple[int, int], variance: float) -> None:
    """A unit with a bias of 1 fires from 14 matches of 20 on, one of -1 from 15 or from 17.

    Units are independent in the mean over targets, so that 100 of them vary by 100 p (1 - p).
    """

    def of_unit(matches: int) -> float:
        p = sum(math.comb(20, k) for k in range(matches, 21)) / 2**20
        return p * (1 - p)

    exact = 100 * (of_unit(least[0]) + of_unit(least[1])) / 2
    assert exact == pytest.approx(variance, abs=0.005)
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        target = SlowRegression(seed, threshold=threshold).target
        found.append(target(rng.integers(2, size=(500, 20)).astype(np.float32)).var())
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / np.sqrt(300))


def test_target_against_counting_matches() -> None:
    """A unit's sum exceeds its threshold when more than β (m + 1) of its bits match.

    A bit matches where it is 1 and its weight +1, or 0 and its weight -1; the bias is a
    weight on a bit that is always 1. The loop below counts, one unit and example at a time.
    """
    rng = np.random.default_rng(0)
    network = TargetNetwork.draw(rng, inputs=20, units=100)
    x = rng.integers(2, size=(300, 20)).astype(np.float32)
    expected = []
    for bits in x:
        output = network.output_bias
        for weights, bias, out in zip(
            network.weights, network.biases, network.output_weights, strict=True
        ):
            pairs = zip([*bits, 1], [*weights, bias], strict=True)
            matches = sum((bit == 1) == (weight == 1) for bit, weight in pairs)
            output += out if matches >= 15 else 0  # 0.7 * 21 = 14.7
        expected.append([output])
    np.testing.assert_array_equal(network(x), expected)
    assert len(np.unique(expected)) > 3  # the units do fire


def test_target_is_of_signs_and_of_the_right_size() -> None:
    network = TargetNetwork.draw(np.random.default_rng(0), inputs=20, units=100)
    assert network.weights.shape == (100, 20)
    assert network.biases.shape == network.output_weights.shape == (100,)
    signs = np.concatenate(
        [network.weights.ravel(), network.biases, network.output_weights, [network.output_bias]]
    )
    assert set(signs) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / np.sqrt(len(signs))


def test_the_stream_is_bits_and_its_target() -> None:
    stream = SlowRegression(0, task_length=50)
    assert (stream.input_size, stream.num_outputs, stream.kind) == (20, 1, "regression")
    x, y = stream.next(400)
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(y, stream.target(x))
    assert np.unique(y).size > 1


def test_target_is_the_seeds_and_fixed() -> None:
    first, again = SlowRegression(0), SlowRegression(0, task_length=3, change="redraw")
    np.testing.assert_array_equal(first.target.weights, again.target.weights)
    assert not np.array_equal(first.target.weights, SlowRegression(1).target.weights)
    before = first.target.weights.copy()
    first.next(25_000)
    np.testing.assert_array_equal(first.target.weights, before)


def test_flip_one() -> None:
    x, _ = SlowRegression(1, task_length=10).next(2000)
    slow = x[:, :15].reshape(200, 10, 15)
    assert (slow == slow[:, :1]).all()  # constant within a task
    changed = slow[1:, 0] != slow[:-1, 0]
    np.testing.assert_array_equal(changed.sum(axis=1), 1)  # exactly one from task to task
    assert changed.any(axis=0).all()  # any of the 15 may be it


def test_redraw() -> None:
    x, _ = SlowRegression(1, task_length=10, change="redraw").next(4000)
    slow = x[:, :15].reshape(400, 10, 15)
    assert (slow == slow[:, :1]).all()
    changed = (slow[1:, 0] != slow[:-1, 0]).mean()
    assert changed == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(399 * 15))


def test_fresh_bits_are_fair_and_independent() -> None:
    x, _ = SlowRegression(2).next(20_000)
    fresh = x[:, 15:]
    bound = 4 * 0.5 / np.sqrt(20_000)
    np.testing.assert_allclose(fresh.mean(axis=0), 0.5, atol=bound)
    for i, j in itertools.combinations(range(5), 2):
        assert (fresh[:, i] == fresh[:, j]).mean() == pytest.approx(0.5, abs=bound)
    assert (fresh[1:] == fresh[:-1]).mean() == pytest.approx(0.5, abs=bound)


def test_change_comes_exactly_after_the_task() -> None:
    stream = SlowRegression(0)
    assert stream.task_length == 10_000
    x, _ = stream.next(30_000)
    changes = np.flatnonzero((x[1:, :15] != x[:-1, :15]).any(axis=1)) + 1
    np.testing.assert_array_equal(changes, [10_000, 20_000])


def test_slow_bits_cannot_be_edited_from_outside() -> None:
    stream = SlowRegression(0)
    stream.slow_bits()[:] = 7
    assert set(stream.slow_bits()) == {0, 1}


@pytest.mark.parametrize(("asked", "given"), [(8, 8), (2000, 32)])
def test_probe_is_of_the_32_inputs_of_the_task(asked: int, given: int) -> None:
    stream = SlowRegression(3, task_length=10)
    stream.next(10)
    probe = stream.probe(asked)
    assert probe.shape == (given, 20) and probe.dtype == np.float32
    assert len(np.unique(probe, axis=0)) == given
    x, _ = stream.next(10)
    np.testing.assert_array_equal(probe[:, :15], np.tile(x[0, :15], (given, 1)))
    if given == 32:
        assert {tuple(row) for row in x} <= {tuple(row) for row in probe}


def test_unknown_change() -> None:
    with pytest.raises(UsageError, match="change: expected one of flip-one, redraw, got 'flip'"):
        SlowRegression(0, change="flip")  # type: ignore[arg-type]


def test_unknown_threshold() -> None:
    with pytest.raises(UsageError, match="threshold: expected one of paper, official, got 'code'"):
        SlowRegression(0, threshold="code")  # type: ignore[arg-type]
