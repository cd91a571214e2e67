"""The picture of forgetting: what is read, computed and drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clrl.report.forgetting import Arm, after_each, matrix_of, picture, plane

A = np.array([[0.9, 0.2, 0.1], [0.95, 0.8, 0.3], [0.5, 0.6, 0.7]])
LOWER = np.where(np.tril(np.ones((3, 3))) > 0, A, np.nan)


def lines(matrix: np.ndarray, what: str = "accuracy") -> list[dict[str, float | None]]:
    rows: list[dict[str, float | None]] = [{"step": 0.0, "online/accuracy": 0.5}]
    for after, row in enumerate(matrix):
        tags = {
            f"retention/{what}/{i}": float(value) for i, value in enumerate(row) if value == value
        }
        rows += [{"step": after + 1.0, **tags}]
    return rows


def test_a_matrix_from_lines() -> None:
    np.testing.assert_array_equal(matrix_of(lines(A)), A)  # type: ignore[arg-type]
    np.testing.assert_array_equal(matrix_of(lines(LOWER, "return"), "return"), LOWER)  # type: ignore[arg-type]
    assert matrix_of(lines(A), "return") is None
    assert matrix_of(lines(A[:2])) is None  # it ended early
    again = np.concatenate([A, A[:1]])  # the first task came again
    np.testing.assert_array_equal(matrix_of(lines(again)), A)  # type: ignore[arg-type]
    missing = lines(A)
    missing[2]["retention/accuracy/0"] = None
    assert matrix_of(missing) is None


def test_the_plane_by_hand() -> None:
    seeds = np.stack([A + 0.002, A, A - 0.002])
    (point,) = plane([Arm("three", seeds, "accuracy")])
    assert point.plasticity == pytest.approx((0.8 + 0.7) / 2)
    assert point.stability == pytest.approx((0.5 + 0.6) / 2)
    # Student's quantile of 99.7% at two degrees of freedom is 18.2.
    reach = 18.216 * 0.002 / np.sqrt(3)
    assert point.plasticity_interval == pytest.approx((0.75 - reach, 0.75 + reach), rel=1e-4)
    assert point.stability_interval == pytest.approx((0.55 - reach, 0.55 + reach), rel=1e-4)
    (single,) = plane([Arm("one", LOWER[None], "return")])
    assert (single.plasticity, single.stability) == pytest.approx((0.75, 0.55))
    assert all(map(math.isnan, (*single.plasticity_interval, *single.stability_interval)))
    assert plane([Arm("alone", np.ones((2, 1, 1)), "accuracy")]) == []


def test_means_after_each_task() -> None:
    seeds = np.stack([LOWER + 0.03, LOWER, LOWER - 0.03])
    middle, low, high = after_each(Arm("three", seeds, "accuracy"))
    np.testing.assert_allclose(middle, LOWER)
    np.testing.assert_allclose((high - low)[2, :2], 2 * 18.216 * 0.03 / np.sqrt(3), rtol=1e-4)
    assert (high[0, 0], np.isnan(high[0, 1])) == (1.0, True)  # no accuracy is above 1
    assert np.isnan(after_each(Arm("two", seeds[:2], "accuracy"))[1]).all()


@pytest.mark.parametrize("matrix", [A, LOWER])
def test_every_arm_is_in_the_picture(matrix: np.ndarray) -> None:
    found = [
        Arm("tuned", np.stack([matrix] * 2), "accuracy", "lower"),
        Arm("scratch", np.stack([matrix] * 2), "accuracy", "upper"),
        *(Arm(f"arm-{i}", np.stack([matrix] * 2), "accuracy") for i in range(5)),
    ]
    drawn = picture("title", found)
    left, right = drawn.subfigs
    panels = [axis.get_title() for axis in left.axes if axis.get_visible()]
    assert panels == [f"arm-{i}" for i in range(5)]
    # Three lines and three dots of its own, its last once more, and the two that frame it.
    assert len(left.axes[0].lines) == 3 + 3 + 1 + 2
    labels = {text.get_text() for text in right.axes[0].texts}
    assert labels == {arm.label for arm in found}
    drawn.canvas.draw()


def test_a_single_arm_can_be_drawn() -> None:
    picture("title", [Arm("tuned", A[None], "return", "lower")]).canvas.draw()
