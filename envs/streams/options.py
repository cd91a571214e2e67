"""Options of the streams; these dataclasses own the defaults. Nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import PositiveInt

InputRange = Literal["symmetric", "unit"]
"""Where pixels lie: ``symmetric`` is [-1, 1], ``unit`` is [0, 1]."""


@dataclass(frozen=True)
class PermutedMNISTOptions:
    """Options of `clrl.envs.streams.permuted.PermutedMNIST`.

    The defaults are the setting of UPGD (Elsayed & Mahmood 2024); Dohare et al. (2024)
    use 60,000 examples a task and pixels in [0, 1].

    Attributes:
        task_length: examples between two changes of the permutation.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    task_length: PositiveInt = 5000
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class LabelPermutedMNISTOptions:
    """Options of `clrl.envs.streams.permuted.LabelPermutedMNIST`.

    The task length is that of UPGD's label-permuted streams (Elsayed & Mahmood 2024).

    Attributes:
        task_length: examples between two changes of the permutation.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    task_length: PositiveInt = 2500
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class PermutedDigitsOptions:
    """Options of `clrl.envs.streams.permuted.PermutedDigits`.

    Attributes:
        task_length: examples between two changes of the permutation.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    task_length: PositiveInt = 1500
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class LabelPermutedDigitsOptions:
    """Options of `clrl.envs.streams.permuted.LabelPermutedDigits`.

    Attributes:
        task_length: examples between two changes of the permutation.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    task_length: PositiveInt = 750
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class SlowRegressionOptions:
    """Options of `clrl.envs.streams.regression.SlowRegression`.

    Attributes:
        task_length: examples between two changes of the slow bits.
        change: ``flip-one`` flips one random slow bit, as the paper says (Dohare et al.
            2024); ``redraw`` draws all slow bits anew, as the default data of the
            official code does.
    """

    task_length: PositiveInt = 10_000
    change: Literal["flip-one", "redraw"] = "flip-one"
