"""Options of the streams; these dataclasses own the defaults. Nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import NonNegativeFloat, PositiveFloat, PositiveInt

InputRange = Literal["symmetric", "unit"]
"""Where pixels lie: ``symmetric`` is [-1, 1], ``unit`` is [0, 1]."""

Data = Literal["mnist", "digits"]
"""MNIST, or scikit-learn's 8 x 8 digits, of which every fifth is held out."""

Heads = Literal["domain", "task", "class"]
"""What a learner is to tell (van de Ven & Tolias 2019): ``domain``, which class within the task;
``task``, the same with outputs of each task's own, the task being known; ``class``, which class
of which task."""

Threshold = Literal["paper", "official"]
"""When a unit of slow-regression's target fires; see `clrl.envs.streams.regression`."""


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
        threshold: when the target's units fire: as the ``paper`` says, or as the ``official``
            code computes it, which gives the target a variance of 2.78 in place of 3.73 (over
            inputs drawn uniformly, in the mean of all target networks).
    """

    task_length: PositiveInt = 10_000
    change: Literal["flip-one", "redraw"] = "flip-one"
    threshold: Threshold = "paper"


@dataclass(frozen=True)
class SplitOptions:
    """Options of `clrl.envs.streams.tasks.Split`.

    Attributes:
        data: the images.
        classes_per_task: digits of one task; a divisor of 10.
        task_length: examples of one task.
        heads: what is to be told apart.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    data: Data = "mnist"
    classes_per_task: PositiveInt = 2
    task_length: PositiveInt = 10_000
    heads: Heads = "class"
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class PermutedTasksOptions:
    """Options of `clrl.envs.streams.tasks.PermutedTasks`.

    Attributes:
        data: the images.
        num_tasks: how many permutations.
        task_length: examples of one task.
        heads: what is to be told apart.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    data: Data = "mnist"
    num_tasks: PositiveInt = 10
    task_length: PositiveInt = 10_000
    heads: Heads = "domain"
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class RotatedOptions:
    """Options of `clrl.envs.streams.tasks.Rotated`.

    Attributes:
        data: the images.
        num_tasks: how many angles.
        degrees: from one task to the next, counter-clockwise.
        task_length: examples of one task.
        heads: what is to be told apart.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    data: Data = "mnist"
    num_tasks: PositiveInt = 6
    degrees: float = 30.0
    task_length: PositiveInt = 10_000
    heads: Heads = "domain"
    input_range: InputRange = "symmetric"


@dataclass(frozen=True)
class MonthsOptions:
    """Options of `clrl.envs.streams.tasks.Months`.

    Attributes:
        data: the images.
        months: months that follow the base, a task each.
        base_months: months that the base, the first task, is made of.
        base_length: examples of the base.
        task_length: examples of every later month.
        drift: digits by which the centre of what is common moves in a month.
        spread: how many digits to either side are common, in standard deviations of a bell.
        degrees: by which the images turn in a month, counter-clockwise.
        heads: what is to be told apart.
        input_range: pixels in [-1, 1] (``symmetric``) or [0, 1] (``unit``).
    """

    data: Data = "mnist"
    months: PositiveInt = 8
    base_months: PositiveInt = 4
    base_length: PositiveInt = 20_000
    task_length: PositiveInt = 5_000
    drift: NonNegativeFloat = 1.0
    spread: PositiveFloat = 1.5
    degrees: float = 10.0
    heads: Heads = "domain"
    input_range: InputRange = "symmetric"
