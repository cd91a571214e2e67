"""The table of metrics. Data only: nothing here imports torch."""

from __future__ import annotations

from clrl.registry import Entry, Table

_PLASTICITY = "clrl.metrics.plasticity:"

METRICS = Table(
    "metric",
    [
        Entry(
            "dead_units",
            "share of units at 0 (tanh: saturated) on every probe example",
            _PLASTICITY + "dead_units",
        ),
        Entry(
            "inactive_units",
            "share of units non-zero on at most 1% of probe examples",
            _PLASTICITY + "inactive_units",
        ),
        Entry(
            "dormant_units",
            "share of units with mean activity at most 0.025 of the layer's (ReDo)",
            _PLASTICITY + "dormant_units",
        ),
        Entry(
            "zero_activations",
            "share of zero entries among the activations (sparsity)",
            _PLASTICITY + "zero_activations",
        ),
        Entry(
            "effective_rank",
            "exp of the entropy of the features' singular values (Roy & Vetterli)",
            _PLASTICITY + "effective_rank",
        ),
        Entry(
            "srank",
            "singular values that make up 99% of their sum (Kumar et al.)",
            _PLASTICITY + "srank",
        ),
        Entry(
            "stable_rank",
            "squared Frobenius norm of the features over squared spectral norm",
            _PLASTICITY + "stable_rank",
        ),
        Entry(
            "approximate_rank",
            "squared singular values that make up 99% of their sum (Dohare et al.)",
            _PLASTICITY + "approximate_rank",
        ),
        Entry("grad_norm", "L2 norm of the gradient, before clipping", _PLASTICITY + "grad_norm"),
        Entry(
            "grad_zero_fraction",
            "share of zero entries in the gradient",
            _PLASTICITY + "grad_zero_fraction",
        ),
        Entry(
            "weight_magnitude",
            "mean absolute value of the weights",
            _PLASTICITY + "weight_magnitude",
        ),
        Entry("weight_norm", "L2 norm of the weights", _PLASTICITY + "weight_norm"),
        Entry(
            "weight_change",
            "root mean square change of the weights over a logging window",
            _PLASTICITY + "weight_change",
        ),
        Entry(
            "step_plasticity",
            "share of a sample's loss that one update on it removes (UPGD)",
            _PLASTICITY + "step_plasticity",
        ),
    ],
    group="clrl.metrics",
)
