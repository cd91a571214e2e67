"""Figures of continual learning against a matrix and curves worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clrl.metrics import continual

# A[k][i]: performance on task i after task k.
A = [
    [0.90, 0.20, 0.10],
    [0.95, 0.80, 0.30],
    [0.50, 0.60, 0.70],
]


def test_a_matrix_by_hand() -> None:
    assert continual.average_accuracy(A) == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert continual.learning_accuracy(A) == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert continual.retained_accuracy(A) == pytest.approx((0.5 + 0.6) / 2)
    assert continual.forgetting(A) == pytest.approx((0.4 + 0.2) / 2)
    # Task 0 was known best after task 1.
    assert continual.max_forgetting(A) == pytest.approx((0.45 + 0.2) / 2)
    assert continual.backward_transfer(A) == pytest.approx(-0.3)
    fresh = [0.1, 0.15, 0.05]
    assert continual.forward_transfer(A, fresh) == pytest.approx((0.05 + 0.25) / 2)


def test_a_task_is_not_known_before_it_was_learned() -> None:
    """A lucky start counts for nothing: task 1 was at 0.99 before it was learned."""
    lucky = [[0.9, 0.99, 0.0], [0.9, 0.8, 0.0], [0.9, 0.8, 0.5]]
    assert continual.max_forgetting(lucky) == pytest.approx(0.0)


def test_seeds_stay_apart() -> None:
    both = np.stack([A, np.array(A) / 2])
    for of in (
        continual.average_accuracy,
        continual.learning_accuracy,
        continual.retained_accuracy,
        continual.forgetting,
        continual.max_forgetting,
        continual.backward_transfer,
    ):
        assert of(both).tolist() == pytest.approx([float(of(A)), float(of(A)) / 2])


def test_a_single_task_forgets_nothing_that_could_be_measured() -> None:
    one = [[0.7]]
    assert continual.average_accuracy(one) == continual.learning_accuracy(one) == 0.7
    for of in (continual.forgetting, continual.max_forgetting, continual.retained_accuracy):
        assert np.isnan(of(one))
    assert np.isnan(continual.forward_transfer(one, [0.1]))
    assert set(continual.retention(one, "return")) == {"average_return", "learning_return"}


def test_untested_later_tasks_do_not_matter() -> None:
    lower = np.where(np.tril(np.ones((3, 3))) > 0, A, np.nan)
    for name, value in continual.retention(lower, "accuracy").items():
        assert value == pytest.approx(continual.retention(A, "accuracy")[name])


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [[0.5, 0.5]], np.zeros((2, 0, 0))])
def test_a_matrix_is_square(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected a matrix"):
        continual.forgetting(wrong)  # type: ignore[arg-type]


def test_performance_of_tasks() -> None:
    curve = [[1.0, 0.0, 1.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]]
    assert continual.task_performance(curve, [3, 1, 2]).tolist() == [
        [pytest.approx(2 / 3), 1.0, 0.5],
        [0.0, 1.0, 0.5],
    ]
    for lengths in ([3, 1], [6, 0], [7]):
        with pytest.raises(ValueError, match="lengths"):
            continual.task_performance(curve, lengths)


def test_loss_of_plasticity() -> None:
    of_tasks = [0.9, 0.7, 0.8, 0.4]
    assert continual.loss_of_plasticity(of_tasks) == pytest.approx(0.5)
    assert continual.loss_of_plasticity(of_tasks, 2) == pytest.approx(0.8 - 0.6)
    with pytest.raises(ValueError, match="window"):
        continual.loss_of_plasticity(of_tasks, 5)


def test_recovery_time() -> None:
    # 0.8 before the change at step 4; 95% of that is 0.76.
    curve = [0.2, 0.9, 0.8, 0.7, 0.1, 0.5, 0.8, 0.7, 0.9, 0.9]
    of = continual.recovery_time
    assert of(curve, 4, 3) == 3  # the third step after the change
    assert of(curve, 4, 3, smooth=2) == 5  # (0.7 + 0.9) / 2 at steps 7 and 8
    assert of(curve, 4, 3, share=0.5) == 2
    assert of([*curve[:8], 0.1, 0.1], 4, 3, smooth=3) == np.inf
    assert of([curve, curve], 4, 3).tolist() == [3, 3]
    with pytest.raises(ValueError, match="steps before step 4"):
        of(curve, 4, 5)
