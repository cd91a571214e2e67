"""The table of benchmarks. Data only: nothing heavy is imported here."""

from __future__ import annotations

from clrl.registry import Entry, Table

_PERMUTED = "clrl.envs.streams.permuted:"
_REGRESSION = "clrl.envs.streams.regression:"
_OPTIONS = "clrl.envs.streams.options:"

BENCHMARKS = Table(
    "benchmark",
    [
        Entry(
            "permuted-mnist",
            "MNIST, its pixels permuted anew every 5,000 examples",
            _PERMUTED + "PermutedMNIST",
            _OPTIONS + "PermutedMNISTOptions",
        ),
        Entry(
            "label-permuted-mnist",
            "MNIST, its labels permuted anew every 2,500 examples",
            _PERMUTED + "LabelPermutedMNIST",
            _OPTIONS + "LabelPermutedMNISTOptions",
        ),
        Entry(
            "permuted-digits",
            "scikit-learn's 8x8 digits, pixels permuted every 1,500 examples; no download",
            _PERMUTED + "PermutedDigits",
            _OPTIONS + "PermutedDigitsOptions",
        ),
        Entry(
            "label-permuted-digits",
            "scikit-learn's 8x8 digits, labels permuted every 750 examples; no download",
            _PERMUTED + "LabelPermutedDigits",
            _OPTIONS + "LabelPermutedDigitsOptions",
        ),
        Entry(
            "slow-regression",
            "slowly-changing regression on 20 bits (Dohare et al. 2024); generated",
            _REGRESSION + "SlowRegression",
            _OPTIONS + "SlowRegressionOptions",
        ),
    ],
    group="clrl.benchmarks",
)
