"""Plasticity metrics against numbers worked by hand, and against NumPy's SVD."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clrl.metrics import plasticity
from clrl.metrics.plasticity import (
    approximate_rank,
    dead_units,
    dormant_units,
    effective_rank,
    grad_norm,
    grad_zero_fraction,
    inactive_units,
    singular_values,
    srank,
    stable_rank,
    step_plasticity,
    weight_change,
    weight_magnitude,
    weight_norm,
    zero_activations,
)

FEATURE_METRICS = [dead_units, inactive_units, dormant_units, zero_activations]
RANKS = [effective_rank, srank, stable_rank, approximate_rank]

# Four examples (rows) of four units (columns).
#   unit 0: never active; unit 1: active once; unit 2: always 0.02; unit 3: always 2.
H = torch.tensor(
    [
        [0.0, 0.0, 0.02, 2.0],
        [0.0, 0.0, 0.02, 2.0],
        [0.0, 4.0, 0.02, 2.0],
        [0.0, 0.0, 0.02, 2.0],
    ]
)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# Units


def test_dead_units_by_hand() -> None:
    assert dead_units(H).item() == 1 / 4  # unit 0 alone


def test_dead_units_looks_at_both_signs() -> None:
    # Unit 0 has largest value 0, unit 1 smallest value 0; neither is dead, unit 2 is.
    h = torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, -0.0]])
    assert dead_units(h).item() == 1 / 3


def test_dead_units_of_tanh() -> None:
    # Unit 0: saturated at either end on every example. Unit 1: 0 throughout, which for tanh is
    # its most sensitive point. Unit 2: 0.98 once. Unit 3: 0.99 itself is not above 0.99.
    h = torch.tensor(
        [[0.995, 0.0, 1.0, 0.99], [-0.995, 0.0, 0.98, 0.99]],
        dtype=torch.float64,
    )
    assert dead_units(h, activation="tanh").item() == 1 / 4
    assert dead_units(h, activation="relu").item() == 1 / 4  # unit 1 instead
    assert dead_units(h[:, [0, 2, 3]], activation="relu").item() == 0


def test_dead_units_of_sigmoid_are_those_of_tanh_at_half_the_input() -> None:
    z = torch.tensor([[6.0, 5.0, -6.0], [-6.0, 6.0, -7.0]], dtype=torch.float64)
    # tanh(5 / 2) = 0.9866 <= 0.99; tanh(6 / 2) = 0.99505: units 0 and 2.
    assert dead_units(torch.sigmoid(z), activation="sigmoid").item() == 2 / 3
    assert dead_units(torch.tanh(z / 2), activation="tanh").item() == 2 / 3


def test_inactive_units_by_hand() -> None:
    assert inactive_units(H).item() == 1 / 4  # 1% of 4 examples is less than one
    assert inactive_units(H, threshold=0.25).item() == 2 / 4  # unit 1: 1 of 4, the bound counts


def test_inactive_units_counts_exactly_one_percent() -> None:
    h = torch.zeros(200, 4)
    h[:2, 0] = 1.0  # 2 of 200 = 1%: inactive
    h[:3, 1] = -1.0  # 3 of 200: active
    h[:, 2] = 1.0  # active
    assert inactive_units(h).item() == 2 / 4  # units 0 and 3


def test_dormant_units_by_hand() -> None:
    # Mean magnitudes 0, 1, 0.02, 2; their mean 3.02 / 4 = 0.755.
    # Scores 0, 1.325, 0.0265, 2.649: only unit 0 is at most 0.025; unit 2 joins at 0.03.
    assert dormant_units(H).item() == 1 / 4
    assert dormant_units(H, tau=0.03).item() == 2 / 4


def test_dormant_units_takes_magnitudes_and_includes_the_bound() -> None:
    # Means |h|: 1 (its plain mean is 0), 3; layer mean 2; scores 0.5 and 1.5.
    h = torch.tensor([[1.0, 3.0], [-1.0, 3.0]])
    assert dormant_units(h, tau=0.5).item() == 1 / 2
    assert dormant_units(h, tau=0.49).item() == 0


def test_zero_activations_by_hand() -> None:
    assert zero_activations(H).item() == 7 / 16  # 4 in column 0, 3 in column 1


@pytest.mark.parametrize("metric", FEATURE_METRICS)
def test_a_layer_of_zeros(metric) -> None:
    assert metric(torch.zeros(5, 3)).item() == 1


@pytest.mark.parametrize("metric", FEATURE_METRICS)
def test_a_layer_of_one_unit(metric) -> None:
    assert metric(torch.ones(5, 1)).item() == 0
    assert metric(torch.zeros(5, 1)).item() == 1


def test_counts_in_half_precision_are_exact() -> None:
    h = torch.ones(3000, 2, dtype=torch.float16)
    h[:5, 0] = 0
    assert zero_activations(h).item() == 5 / 6000
    # 2995 of 3000 is 0.9983; float16 would round the count to 2996.
    assert inactive_units(h, threshold=0.9985).item() == 1 / 2


@pytest.mark.parametrize("metric", [*FEATURE_METRICS, singular_values])
@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (0, 3, 3)])
def test_features_of_a_wrong_shape_are_refused(metric, shape) -> None:
    with pytest.raises(ValueError, match="examples, units"):
        metric(torch.zeros(shape))


# Ranks


def test_ranks_by_hand() -> None:
    # Singular values 3, 2, 1 (sum 6, squares 9, 4, 1, sum 14).
    sigma = values(3.0, 2.0, 1.0)
    # p = 1/2, 1/3, 1/6: exp of the entropy = 2^(1/2) 3^(1/3) 6^(1/6).
    assert effective_rank(sigma).item() == pytest.approx(2**0.5 * 3 ** (1 / 3) * 6 ** (1 / 6))
    # Sums 3, 5, 6 against 0.99 * 6 = 5.94: three; against 0.8 * 6 = 4.8: two.
    assert srank(sigma).item() == 3
    assert srank(sigma, delta=0.2).item() == 2
    assert stable_rank(sigma).item() == pytest.approx(14 / 9)
    # Sums 9, 13, 14 against 0.99 * 14 = 13.86: three; against 0.9 * 14 = 12.6: two.
    assert approximate_rank(sigma).item() == 3
    assert approximate_rank(sigma, fraction=0.9).item() == 2


def test_srank_and_approximate_rank_differ() -> None:
    # 10 and 1: 10 / 11 = 0.909 < 0.99, but 100 / 101 = 0.9901 >= 0.99.
    assert srank(values(10.0, 1.0)).item() == 2
    assert approximate_rank(values(10.0, 1.0)).item() == 1


@pytest.mark.parametrize("n", [100, 200, 300, 1000])
@pytest.mark.parametrize("size", [1.0, 0.1, 1 / 3, 0.7, 1.1, 2.3])
def test_a_sum_that_meets_the_bound_counts(n, size) -> None:
    # 99 in a hundred equal values are 99% of the sum, however their sums round.
    sigma = torch.full((n,), size, dtype=torch.float64)
    assert srank(sigma).item() == 99 * n // 100
    assert approximate_rank(sigma).item() == 99 * n // 100


def test_no_share_left_out_is_the_rank() -> None:
    sigma = values(5.0, 1.0, 0.5, 0.0, 0.0)
    assert srank(sigma, delta=0.0).item() == 3
    assert approximate_rank(sigma, fraction=1.0).item() == 3


@pytest.mark.parametrize("shape", [(3, 3), (7, 3), (3, 7)])
def test_singular_values_by_hand(shape) -> None:
    # A 2 x 2 block [[3, 0], [4, 5]] has A^T A = [[25, 20], [20, 25]]: 45 and 5. Beside it a
    # unit of its own, with -2.
    h = torch.zeros(shape)
    h[0, 0], h[1, 0], h[1, 1], h[2, 2] = 3.0, 4.0, 5.0, -2.0
    torch.testing.assert_close(
        singular_values(h), values(math.sqrt(45), math.sqrt(5), 2.0), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_rank_of_the_identity(n) -> None:
    sigma = singular_values(torch.eye(n))
    assert effective_rank(sigma).item() == pytest.approx(n)
    assert stable_rank(sigma).item() == pytest.approx(n)
    assert srank(sigma, delta=0.0).item() == n
    # 99 hundredths of n equal values: all of them up to n = 99.
    assert srank(sigma).item() == n
    assert approximate_rank(sigma).item() == n


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (9, 9), (9, 1), (1, 9)])
def test_rank_of_a_matrix_of_rank_one(rank, shape) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(shape[0], 1, generator=generator, dtype=torch.float64)
    right = torch.randn(1, shape[1], generator=generator, dtype=torch.float64)
    assert rank(singular_values(left @ right)).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (4, 1), (1, 1)])
def test_rank_of_zeros_is_zero(rank, shape) -> None:
    assert rank(singular_values(torch.zeros(shape))).item() == 0


def numpy_ranks(matrix: np.ndarray) -> dict[str, float]:
    """The definitions written out once more, on NumPy's SVD in float64."""
    sigma = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    share = sigma / sigma.sum()
    share = share[share > 0]
    return {
        "effective_rank": float(np.exp(-(share * np.log(share)).sum())),
        "srank": float(1 + np.argmax(np.cumsum(sigma) / sigma.sum() >= 0.99)),
        "stable_rank": float(np.linalg.norm(matrix, "fro") ** 2 / np.linalg.norm(matrix, 2) ** 2),
        "approximate_rank": float(1 + np.argmax(np.cumsum(sigma**2) / (sigma**2).sum() >= 0.99)),
    }


def feature_matrix(kind: str) -> np.ndarray:
    generator = np.random.default_rng(1)
    if kind == "relu":
        return np.maximum(generator.normal(size=(500, 60)), 0)
    if kind == "wide":
        return np.tanh(generator.normal(size=(40, 90)))
    if kind == "dead columns":
        return feature_matrix("relu") * (np.arange(60) % 3 > 0)
    if kind == "rank 7":
        return generator.normal(size=(300, 7)) @ generator.normal(size=(7, 50))
    if kind == "decaying":  # singular values from 1 to 1e-5
        left, _ = np.linalg.qr(generator.normal(size=(200, 40)))
        right, _ = np.linalg.qr(generator.normal(size=(40, 40)))
        return (left * np.logspace(0, -5, 40)) @ right
    assert kind == "nearly equal columns"
    return 1 + 1e-4 * generator.normal(size=(300, 20))


KINDS = ["relu", "wide", "dead columns", "rank 7", "decaying", "nearly equal columns"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_ranks_agree_with_numpy(kind, scale) -> None:
    matrix = (feature_matrix(kind) * scale).astype(np.float32)
    sigma = singular_values(torch.from_numpy(matrix))
    expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(sigma.numpy(), expected, rtol=1e-3, atol=7e-7 * expected[0])
    ranks = {rank.__name__: rank(sigma).item() for rank in RANKS}
    assert ranks == pytest.approx(numpy_ranks(matrix), rel=1e-4)


def test_extreme_features_do_not_overflow() -> None:
    h = torch.tensor([[1e200, 0.0], [0.0, 1e200]], dtype=torch.float64)
    sigma = singular_values(h)
    assert [rank(sigma).item() for rank in RANKS] == pytest.approx([2, 2, 2, 2])


def test_features_are_left_as_they_were() -> None:
    h = H.double()
    before = h.clone()
    singular_values(h)
    for metric in FEATURE_METRICS:
        metric(h)
    assert torch.equal(h, before)


# Gradients, weights, losses: two members, a 2 x 2 matrix and a vector of 2 each.

G = [
    torch.tensor([[[1.0, 0.0], [0.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]]),
    torch.tensor([[2.0, 0.0], [0.0, 3.0]]),
]


def test_grad_norm_by_hand() -> None:
    # sqrt(1 + 4 + 4) = 3 and sqrt(9) = 3, over both tensors.
    assert grad_norm(G).tolist() == pytest.approx([3.0, 3.0], rel=1e-6)  # float32 sums


def test_grad_zero_fraction_by_hand() -> None:
    # Zeros: 2 of 4 and 1 of 2; 4 of 4 and 1 of 2. Every entry counts the same.
    assert grad_zero_fraction(G).tolist() == [3 / 6, 5 / 6]


def test_weight_magnitude_by_hand() -> None:
    # (1 + 2 + 2) / 6 and 3 / 6: not the mean of the tensors' means (0.875 and 0.75).
    assert weight_magnitude(G).tolist() == [5 / 6, 3 / 6]


def test_weight_norm_by_hand() -> None:
    assert weight_norm(G).tolist() == pytest.approx([3.0, 3.0], rel=1e-6)


def test_weight_change_by_hand() -> None:
    before = [torch.zeros(2, 2, 2), torch.tensor([[2.0, 3.0], [0.0, 3.0]])]
    # Changes 1, 0, 0, -2 and 0, -3: sqrt(14 / 6); none for the second member.
    assert weight_change(G, before).tolist() == pytest.approx([math.sqrt(14 / 6), 0.0])


def test_step_plasticity_by_hand() -> None:
    before = torch.tensor([2.0, 1.0, 1.0, 0.0, 1e-9])
    after = torch.tensor([0.5, 0.0, 3.0, 0.0, 5e-9])
    # 1 - 0.5 / 2; all gone; rose: 0; 1 - 0 / 1e-8; 1 - 5e-9 / 1e-8, the floor in force.
    expected = [0.75, 1.0, 0.0, 1.0, 0.5]
    assert step_plasticity(before, after).tolist() == pytest.approx(expected)


def test_a_scalar_parameter_and_any_iterable() -> None:
    scalars = {"scale": torch.tensor([3.0, 0.0]), "shift": torch.tensor([4.0, 1.0])}
    assert grad_norm(scalars.values()).tolist() == [5.0, 1.0]
    assert grad_zero_fraction(scalars.values()).tolist() == [0.0, 0.5]
    assert weight_magnitude(t for t in scalars.values()).tolist() == [3.5, 0.5]


@pytest.mark.parametrize("metric", [grad_norm, grad_zero_fraction, weight_magnitude, weight_norm])
def test_no_parameters_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        metric([])
    with pytest.raises(ValueError, match="non-empty"):
        metric([torch.zeros(2, 0)])


def test_weights_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="previous_weights"):
        weight_change(G, G[:1])
    with pytest.raises(ValueError, match="previous_weights"):
        weight_change([torch.zeros(2, 3)], [torch.zeros(2, 1)])


# Every metric: a diverged member, and members beside each other


def random_features(members: int, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    features = torch.relu(torch.randn(members, 130, 37, generator=generator))
    return features.mT if kind == "transposed" else features


def of_features(metric, features):
    return metric(singular_values(features) if metric in RANKS else features)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", [*FEATURE_METRICS, *RANKS])
def test_one_bad_number_spoils_its_member_only(metric, bad) -> None:
    features = random_features(3, "plain")
    expected = of_features(metric, features)
    features[1, 100, 20] = bad
    found = of_features(metric, features)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_layer_under_tanh(bad) -> None:
    features = torch.ones(2, 3, 2)
    features[1] = bad
    assert dead_units(features, activation="tanh")[0].item() == 1
    assert dead_units(features, activation="tanh")[1].isnan()


def change_from_zero(tensors):
    return weight_change(tensors, [torch.zeros_like(t) for t in tensors])


PARAMETER_METRICS = [
    grad_norm,
    grad_zero_fraction,
    weight_magnitude,
    weight_norm,
    change_from_zero,
]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", PARAMETER_METRICS)
def test_one_bad_parameter_spoils_its_member_only(metric, bad) -> None:
    tensors = [t.clone() for t in G]
    tensors[1][0, 1] = bad
    found = metric(tensors)
    assert found[0].isnan()
    assert found[1] == metric(G)[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_step_plasticity_of_a_diverged_loss(bad) -> None:
    good = torch.tensor([1.0, 1.0])
    spoilt = torch.tensor([bad, 0.5])
    assert step_plasticity(spoilt, good)[0].isnan()
    assert step_plasticity(good, spoilt)[0].isnan()
    assert step_plasticity(good, spoilt)[1].item() == 0.5


@pytest.mark.parametrize("metric", [*FEATURE_METRICS, *RANKS])
def test_any_leading_axes(metric) -> None:
    features = random_features(6, "plain")
    grid = of_features(metric, features.reshape(2, 3, 130, 37))
    assert torch.equal(grid, of_features(metric, features).reshape(2, 3))


# Properties

# Whole numbers, so that neither scaling by a power of 2 nor a change of order rounds. The
# product of the positive singular values is then at least 1, and the largest at most 5 * 4, so
# that the least is above 20^-5 = 3e-7 of the largest: clear of what `singular_values` cuts.
layers = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5),
    elements=st.integers(-4, 4).map(float),
)
quick = settings(max_examples=60, deadline=None)


@given(layers)
@quick
def test_unit_metrics_are_fractions_in_their_order(layer) -> None:
    h = torch.from_numpy(layer)
    dead, zeros = dead_units(h).item(), zero_activations(h).item()
    for metric in FEATURE_METRICS:
        assert 0 <= metric(h).item() <= 1
    assert dead == inactive_units(h, threshold=0.0).item() == dormant_units(h, tau=0.0).item()
    assert dead <= inactive_units(h, threshold=0.5).item() <= 1
    assert dead <= dormant_units(h).item()
    assert dead <= zeros
    assert inactive_units(h, threshold=1.0).item() == 1


@given(layers)
@quick
def test_ranks_lie_between_one_and_the_rank(layer) -> None:
    sigma = singular_values(torch.from_numpy(layer))
    rank = np.linalg.matrix_rank(layer.astype(np.float64))
    assert (sigma[1:] <= sigma[:-1]).all() and (sigma >= 0).all()
    assert (sigma > 0).sum() == rank
    lowest = min(rank, 1)
    for metric in RANKS:
        assert lowest - 1e-9 <= metric(sigma).item() <= rank + 1e-9
    assert approximate_rank(sigma) <= srank(sigma)
    assert stable_rank(sigma) <= effective_rank(sigma) + 1e-9


@given(layers)
@quick
def test_ranks_of_small_matrices_agree_with_numpy(layer) -> None:
    assume(layer.any())
    sigma = singular_values(torch.from_numpy(layer))
    expected = np.linalg.svd(layer.astype(np.float64), compute_uv=False)
    for power in (1, 2):  # not where rounding decides which side of the bound a sum is on
        shares = np.cumsum(expected**power) / (expected**power).sum()
        assume((np.abs(shares - 0.99) > 1e-6).all())
    ranks = {rank.__name__: rank(sigma).item() for rank in RANKS}
    assert ranks == pytest.approx(numpy_ranks(layer), rel=1e-6)


@given(layers, st.randoms(use_true_random=False), st.sampled_from([0.25, 8.0, 2.0**20]))
@quick
def test_order_and_scale_do_not_matter(layer, random, scale) -> None:
    units, examples = list(range(layer.shape[1])), list(range(layer.shape[0]))
    random.shuffle(units)
    random.shuffle(examples)
    h = torch.from_numpy(layer)
    other = h[examples][:, units] * scale
    for metric in FEATURE_METRICS:
        assert metric(other) == metric(h)
    for metric in RANKS:
        found = metric(singular_values(other)).item()
        assert found == pytest.approx(metric(singular_values(h)).item(), rel=1e-9)


@given(layers)
@quick
def test_norms_of_parameters(layer) -> None:
    w = [torch.from_numpy(layer)[None]]
    entries = layer.size
    magnitude, norm = weight_magnitude(w).item(), weight_norm(w).item()
    # Cauchy-Schwarz: mean|w| <= root mean square, with equality where all |w| are the same.
    assert 0 <= magnitude <= norm / math.sqrt(entries) * (1 + 1e-6)
    assert weight_norm([2 * t for t in w]).item() == pytest.approx(2 * norm)
    assert weight_magnitude([-t for t in w]).item() == magnitude
    assert change_from_zero(w).item() == pytest.approx(norm / math.sqrt(entries))
    assert weight_change(w, w).item() == 0
    assert grad_zero_fraction(w).item() == pytest.approx(1 - np.count_nonzero(layer) / entries)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
@quick
def test_step_plasticity_is_a_fraction(before, after) -> None:
    found = step_plasticity(torch.tensor(before), torch.tensor(after)).item()
    assert 0 <= found <= 1
    if before > 1e-7 and after >= before:
        assert found == 0


def test_every_public_metric_is_covered_above() -> None:
    public = {
        name
        for name, item in vars(plasticity).items()
        if inspect.isfunction(item) and not name.startswith("_")
    }
    covered = {metric.__name__ for metric in (*FEATURE_METRICS, *RANKS, *PARAMETER_METRICS)}
    covered -= {"change_from_zero"}
    assert public == covered | {"weight_change", "step_plasticity", "singular_values"}
