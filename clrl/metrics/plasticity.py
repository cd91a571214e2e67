"""Plasticity metrics: what a network still uses, and how it is being moved.

Pure functions of torch tensors; every result is float64. Papers use the same words for
different quantities, so each docstring gives the formula, the range, the source and the
other quantities that share its name. Three families:

* of *features*, the activations of one hidden layer on a probe batch, ``[..., examples,
  units]``; a unit is one column. Any leading axes (members of a population) are kept;
* of *singular values*, ``[..., k]`` in descending order. The four rank metrics read these,
  so that `singular_values` is paid for once a layer;
* of *gradients, weights and losses*: tensors with the member axis first, one per parameter,
  of one layer or of a whole network; the result is ``[members]``.

A member whose input holds nan or infinity gets nan, and only that member. What a member
gets does not depend on how many others are stacked beside it: to the last bit with one
torch thread, which is how runs are carried out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

_SATURATION = {"tanh": (-0.99, 0.99), "sigmoid": (0.005, 0.995)}
"""Outside these bounds a unit of that activation is saturated."""

_TIE = 1e-9
"""Relative slack when a cumulative sum is held against a bound, so that rounding of a sum
that meets the bound exactly does not add one to a rank."""


# Features: [..., examples, units] -> [...]


def dead_units(features: Tensor, activation: str = "relu") -> Tensor:
    """Fraction of hidden units that no example of the probe batch can move.

    A unit counts if its activation is exactly 0 on *every* example. For ``tanh`` it counts
    if ``|h| > 0.99`` on every example; for ``sigmoid`` if ``h < 0.005`` or ``h > 0.995`` on
    every example (the same bound through ``sigmoid(z) = (1 + tanh(z / 2)) / 2``; ours, not
    the paper's). Range [0, 1]. Activations that are never exactly 0, such as ``leaky-relu``,
    have no dead units by this definition.

    Not `inactive_units` (almost never active), not `dormant_units` (small beside the rest of
    the layer; often called "dead" when its threshold is 0), not `zero_activations` (sparsity).

    Source: Dohare et al. 2024, on 2,000 examples of the new task before training on it.

    Args:
        features: ``[..., examples, units]``.
        activation: name of the layer's non-linearity; ``"tanh"`` and ``"sigmoid"`` saturate,
            for every other a unit dies at 0.

    Returns:
        ``[...]``.
    """
    _check_features(features)
    if activation in _SATURATION:
        low, high = _SATURATION[activation]
        dead = ((features < low) | (features > high)).all(-2)
    else:
        dead = (features.amax(-2) == 0) & (features.amin(-2) == 0)
    return _of_finite(features, _fraction(dead))


def inactive_units(features: Tensor, threshold: float = 0.01) -> Tensor:
    """Fraction of hidden units that are non-zero on at most ``threshold`` of the examples.

    Range [0, 1]; never below `dead_units` of a ReLU layer, and equal to it at threshold 0.

    Source: Dohare et al. 2024, reinforcement learning (on the last 1,000 steps, 1%), where
    these units are called dormant; `dormant_units` is another quantity.

    Args:
        features: ``[..., examples, units]``.
        threshold: largest share of examples on which an inactive unit is non-zero.

    Returns:
        ``[...]``.
    """
    _check_features(features)
    share = _nonzero_along(features, -2) / features.shape[-2]
    return _of_finite(features, _fraction(share <= threshold))


def dormant_units(features: Tensor, tau: float = 0.025) -> Tensor:
    """Fraction of hidden units whose mean magnitude is small beside their layer's.

    ``s_i = mean|h_i| / mean_k(mean|h_k|)``, means over examples, then over the ``k`` units of
    the layer; the fraction of units with ``s_i <= tau``. Range [0, 1]. Where the whole layer
    is 0 every unit is dormant; otherwise, for ``tau < 1``, at least one is not. Unchanged when
    the layer is scaled.

    Source: Sokar et al. 2023 (ReDo), 0.025 as in its main experiments.

    Args:
        features: ``[..., examples, units]``.
        tau: largest normalised score of a dormant unit.

    Returns:
        ``[...]``.
    """
    _check_features(features)
    magnitude = features.abs().sum(-2).double()
    dormant = magnitude <= tau * magnitude.mean(-1, keepdim=True)
    return _of_finite(features, _fraction(dormant))


def zero_activations(features: Tensor) -> Tensor:
    """Fraction of zero *entries* in the activation matrix: sparsity, not death.

    Range [0, 1]; never below `dead_units` of a ReLU layer. About one half for a ReLU
    layer as initialised.

    Source: Elsayed & Mahmood 2024 (UPGD).

    Args:
        features: ``[..., examples, units]``.

    Returns:
        ``[...]``.
    """
    _check_features(features)
    active = _nonzero_along(features, -2).sum(-1)
    entries = features.shape[-2] * features.shape[-1]
    return _of_finite(features, (entries - active) / entries)


# Singular values: [..., k] -> [...]


def singular_values(features: Tensor) -> Tensor:
    """Singular values of the ``[examples, units]`` feature matrices, largest first.

    Square roots of the eigenvalues of the smaller Gram matrix (features not centred), in
    float64: half the time of a singular value decomposition in float64. It squares the
    condition number, so values below ``sqrt(max(examples, units) * 2.2e-16)`` of the largest
    (7e-7 at 2,000 examples) cannot be told from rounding and are returned as 0; the rank
    metrics do not notice. One member at a time, because a batched product may round
    differently with the size of the batch.

    Args:
        features: ``[..., examples, units]``.

    Returns:
        ``[..., min(examples, units)]``; nan throughout for a member that is not finite.
    """
    _check_features(features)
    members = features.reshape(-1, *features.shape[-2:])
    values = torch.stack([_singular_values(member) for member in members.unbind()])
    return values.reshape(*features.shape[:-2], -1)


def _singular_values(matrix: Tensor) -> Tensor:
    size = min(matrix.shape)
    # One layout whatever the caller's strides, since the layout decides the order of sums.
    matrix = matrix.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    scale = torch.maximum(matrix.amax(), -matrix.amin())
    if not scale.isfinite():
        return matrix.new_full((size,), math.nan)
    if scale == 0:
        return matrix.new_zeros(size)
    matrix /= scale
    gram = matrix.mT @ matrix if matrix.shape[0] > matrix.shape[1] else matrix @ matrix.mT
    squares: Tensor = torch.linalg.eigvalsh(gram).flip(-1)
    squares[squares < max(matrix.shape) * torch.finfo(torch.float64).eps * squares[0]] = 0
    return squares.sqrt() * scale


def effective_rank(singular_values: Tensor) -> Tensor:
    """Effective rank: the exponential of the entropy of the normalised singular values.

    ``exp(-sum_i p_i ln p_i)`` with ``p_i = sigma_i / sum_j sigma_j`` and ``0 ln 0 = 0``. Range
    [1, rank]: n for n equal values, 1 for a matrix of rank one. A matrix of zeros, which the
    source leaves out, has effective rank 0. Unchanged by scaling.

    Not `srank`, which Kumar et al. 2021 call effective rank.

    Source: Roy & Vetterli 2007; used so by Dohare et al. 2024.

    Args:
        singular_values: ``[..., k]``, as from `singular_values`.

    Returns:
        ``[...]``.
    """
    values = singular_values.double()
    total = values.sum(-1)
    share = values / total.unsqueeze(-1)
    rank = torch.exp(-torch.special.xlogy(share, share).sum(-1))
    return torch.where(total == 0, 0.0, rank)


def srank(singular_values: Tensor, delta: float = 0.01) -> Tensor:
    """Least number of singular values that make up ``1 - delta`` of their sum.

    The least ``k`` with ``sum_{i<=k} sigma_i >= (1 - delta) sum_i sigma_i``. A whole number in
    [1, rank]; 0 for a matrix of zeros. Unchanged by scaling.

    Not `approximate_rank`, which sums squares. Kumar et al. call this effective rank, Dohare
    et al. 2024 call it stable rank; here those names mean other things.

    Source: Kumar et al. 2021, with its delta of 0.01.

    Args:
        singular_values: ``[..., k]``, as from `singular_values`.
        delta: share of the sum that is left out.

    Returns:
        ``[...]``.
    """
    return _least_count(singular_values.double(), 1 - delta)


def stable_rank(singular_values: Tensor) -> Tensor:
    """Stable rank in the sense of numerical analysis, ``||F||_F^2 / ||F||_2^2``.

    ``sum_i sigma_i^2 / sigma_1^2``. Range [1, rank]; 0 for a matrix of zeros. Unchanged by
    scaling.

    Not what Dohare et al. 2024 call stable rank: that is `srank`.

    Source: Rudelson & Vershynin 2007 (who call it numerical rank).

    Args:
        singular_values: ``[..., k]``, as from `singular_values`.

    Returns:
        ``[...]``.
    """
    values = singular_values.double()
    largest = values.amax(-1)
    rank = (values / largest.unsqueeze(-1)).square().sum(-1)
    return torch.where(largest == 0, 0.0, rank)


def approximate_rank(singular_values: Tensor, fraction: float = 0.99) -> Tensor:
    """Least number of squared singular values that make up ``fraction`` of their sum.

    The least ``k`` with ``sum_{i<=k} sigma_i^2 >= fraction * sum_i sigma_i^2``. A whole number
    in [1, rank]; 0 for a matrix of zeros. Never above `srank` at ``delta = 1 - fraction``.
    Unchanged by scaling.

    Source: the code of Dohare et al. 2024.

    Args:
        singular_values: ``[..., k]``, as from `singular_values`.
        fraction: share of the sum to be reached.

    Returns:
        ``[...]``.
    """
    values = singular_values.double()
    largest = values.amax(-1, keepdim=True)
    relative = torch.where(largest == 0, 0.0, values / largest)  # squares stay in range
    return _least_count(relative.square(), fraction)


def _least_count(values: Tensor, fraction: float) -> Tensor:
    """Least k with the first k of descending ``values >= 0`` reaching ``fraction`` of the sum."""
    reached = values.cumsum(-1)
    total = reached[..., -1]
    bound = fraction * (1 - _TIE) * total
    count = (reached[..., :-1] < bound.unsqueeze(-1)).sum(-1) + (total > 0)
    return torch.where(total.isfinite(), count.double(), math.nan)


# Gradients, weights, losses: tensors [members, ...] -> [members]


def grad_norm(gradients: Iterable[Tensor]) -> Tensor:
    """L2 norm of the gradient over all given parameters of a member, before clipping.

    ``sqrt(sum g^2)``. Range [0, inf). Summed in the gradient's own precision: a norm beyond it
    (1.8e19 in float32) is nan.

    Source: Elsayed & Mahmood 2024 (UPGD).

    Args:
        gradients: one tensor a parameter, ``[members, ...]``.

    Returns:
        ``[members]``.
    """
    return _norm(_members_first(gradients))


def grad_zero_fraction(gradients: Iterable[Tensor]) -> Tensor:
    """Fraction of gradient entries that are exactly 0, over all given parameters of a member.

    Range [0, 1]. Every entry counts the same, whichever tensor it is in. nan where `grad_norm`
    is nan.

    Source: Elsayed & Mahmood 2024 (UPGD).

    Args:
        gradients: one tensor a parameter, ``[members, ...]``.

    Returns:
        ``[members]``.
    """
    tensors = _members_first(gradients)
    active = _total([_nonzero_along(tensor, -1) for tensor in tensors])
    entries = _entries(tensors)
    return torch.where(_norm(tensors).isfinite(), (entries - active) / entries, math.nan)


def weight_magnitude(weights: Iterable[Tensor]) -> Tensor:
    """Mean absolute value over all given weights of a member.

    ``sum |w| / n``. Range [0, inf). Every entry counts the same, whichever tensor it is in.
    Which parameters are weights is the caller's choice; a run gives the weight matrices,
    without biases.

    Source: Dohare et al. 2024.

    Args:
        weights: one tensor a parameter, ``[members, ...]``.

    Returns:
        ``[members]``.
    """
    tensors = _members_first(weights)
    return _or_nan(_total([tensor.abs().sum(-1) for tensor in tensors]) / _entries(tensors))


def weight_norm(weights: Iterable[Tensor]) -> Tensor:
    """L2 norm over all given weights of a member.

    ``sqrt(sum w^2)``. Range [0, inf). Grows with the number of weights, unlike
    `weight_magnitude`; the two are both called weight magnitude in the literature.

    Source: Elsayed & Mahmood 2024 (UPGD).

    Args:
        weights: one tensor a parameter, ``[members, ...]``.

    Returns:
        ``[members]``.
    """
    return _norm(_members_first(weights))


def weight_change(weights: Iterable[Tensor], previous_weights: Iterable[Tensor]) -> Tensor:
    """Root mean square of the change of the weights between two moments of a run.

    ``sqrt(sum (w - w_previous)^2 / n)``. Range [0, inf). Changes there and back between the two
    moments do not show.

    Source: ours; runs take the two ends of a logging window.

    Args:
        weights: one tensor a parameter, ``[members, ...]``.
        previous_weights: the same parameters earlier, same order and shapes.

    Returns:
        ``[members]``.

    Raises:
        ValueError: the two differ in number or shape.
    """
    now, before = _members_first(weights), _members_first(previous_weights)
    if [tensor.shape for tensor in now] != [tensor.shape for tensor in before]:
        raise ValueError("weights and previous_weights differ in number or shape")
    changes = [new - old for new, old in zip(now, before, strict=True)]
    return _norm(changes) / math.sqrt(_entries(changes))


def step_plasticity(loss_before: Tensor, loss_after: Tensor) -> Tensor:
    """How much of the loss on a sample one update on that sample removed.

    ``clamp(1 - loss_after / max(loss_before, 1e-8), 0, 1)``: 1 if the loss is gone, 0 if it
    did not fall. Both losses are of the same sample in the same mode, and not negative.

    Source: Elsayed & Mahmood 2024 (UPGD), who average it over the stream.

    Args:
        loss_before: ``[...]``, before the update.
        loss_after: ``[...]``, after it.

    Returns:
        ``[...]``.
    """
    before, after = loss_before.double(), loss_after.double()
    plasticity = (1 - after / before.clamp_min(1e-8)).clamp(0, 1)
    return torch.where(before.isfinite() & after.isfinite(), plasticity, math.nan)


def _check_features(features: Tensor) -> None:
    if features.ndim < 2 or features.numel() == 0:
        raise ValueError(
            f"features: expected a non-empty [..., examples, units], got {list(features.shape)}"
        )


def _members_first(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors as a list, scalars a member (``[members]``) as ``[members, 1]``."""
    found = [t.unsqueeze(1) if t.ndim == 1 else t for t in tensors]
    if not found or any(t.ndim == 0 or t.numel() == 0 for t in found):
        raise ValueError("expected one or more non-empty tensors [members, ...]")
    return found


def _entries(tensors: list[Tensor]) -> int:
    """Number of entries of one member."""
    return sum(tensor[0].numel() for tensor in tensors)


def _nonzero_along(tensor: Tensor, axis: int) -> Tensor:
    """How many entries along an axis are not 0."""
    # Adding ones (exact in float32 below 2^24) is several times faster than counting booleans.
    return tensor.sign().abs_().sum(axis, dtype=torch.float32).double()


def _total(rows: list[Tensor]) -> Tensor:
    """Sum of everything a member has, ``[members, ...]`` each -> ``[members]``."""
    return _added([row.double().reshape(len(row), -1).sum(1) for row in rows])


def _added(parts: list[Tensor]) -> Tensor:
    """The sum of parts, one after another: a reduction rounds by how many members there are."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _norm(tensors: list[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(t, dim=tuple(range(1, t.ndim))).double() for t in tensors]
    return _or_nan(_added([norm * norm for norm in norms]).sqrt())


def _fraction(units: Tensor) -> Tensor:
    """Share of true units, ``[..., units]`` -> ``[...]``."""
    return units.sum(-1).double() / units.shape[-1]


def _of_finite(features: Tensor, values: Tensor) -> Tensor:
    """``values`` where all features of the member are finite, else nan."""
    finite = features.amax((-2, -1)).isfinite() & features.amin((-2, -1)).isfinite()
    return torch.where(finite, values, math.nan)


def _or_nan(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, math.nan)
