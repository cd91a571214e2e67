"""Streams for forgetting: a known number of tasks, each of which can be tested at any time.

A task's examples are drawn from a data set's training part, its test examples from the part that
is held out, both shown in the same way. Which rows a task hands out is a function of (seed, task),
so that the position alone is a stream's state. After the last task the first comes again, with
other examples.

Sources: split MNIST as in Zenke et al. 2017 (SI); permuted MNIST as in Goodfellow et al. 2013 and
Kirkpatrick et al. 2017 (EWC); rotated MNIST as in Lopez-Paz & Ranzato 2017; the three kinds of
heads as in van de Ven & Tolias 2019. The months are ours: they stand in for the monthly data of a
study on fine-tuning, "Catastrophic Forgetting, Part 2", whose data are not public.
"""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.envs.streams import data as images
from clrl.envs.streams.base import Stream
from clrl.envs.streams.options import (
    Data,
    Heads,
    InputRange,
    MonthsOptions,
    PermutedTasksOptions,
    RotatedOptions,
    SplitOptions,
)
from clrl.errors import UsageError
from clrl.seeding import numpy_generator

CLASSES = 10
"""Digits of either data set."""

Array = NDArray[Any]


class TaskStream(Stream):
    """A data set as a sequence of tasks that stay testable.

    A subclass says which rows a task consists of (`_draw`) and how an image looks in it (`_show`).

    Args:
        seed: the stream's seed.
        data: the images.
        input_range: where their pixels lie.
        heads: what is to be told apart.
        num_tasks: how many tasks.
        classes: classes of one task.
        task_length: examples of one task.
        first_task_length: of the first task, where that differs.

    Attributes:
        train: where a task's examples come from.
        held_out: where its test examples come from.
    """

    def __init__(
        self,
        seed: int,
        data: Data,
        input_range: InputRange,
        heads: Heads,
        *,
        num_tasks: int,
        classes: int,
        task_length: int,
        first_task_length: int | None = None,
    ) -> None:
        """Start before the first example."""
        self.train, self.held_out = parts(data, input_range)
        outputs = classes if heads == "domain" else classes * num_tasks
        super().__init__(
            seed,
            input_size=self.train.inputs.shape[1],
            num_outputs=outputs,
            kind="classification",
            task_length=task_length,
            first_task_length=first_task_length,
            num_tasks=num_tasks,
            head_size=outputs if heads == "class" else classes,
        )
        self._classes = classes
        self._heads = heads
        self._background = float(self.train.inputs.min())
        # The latest task's rows and how each is shown, kept until another is needed.
        self._kept: tuple[int, Array, Array] = (-1, np.empty(0), np.empty(0))

    @abc.abstractmethod
    def _draw(
        self, task: int, labels: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Draw `n` rows of a data set with these labels for a task, and a look for each."""

    def _show(self, inputs: NDArray[np.float32], look: int) -> NDArray[np.float32]:
        """Images as they look, [n, input_size]."""
        return inputs

    def _label(self, task: int, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Digits -> classes of the task, from 0."""
        return labels

    def _write(self, x: NDArray[np.float32], y: Array) -> None:
        if self._kept[0] != self.task:
            length = self.task_length if self.task else self.first_task_length
            rng = numpy_generator(self.seed, f"stream/order/{self.task}")
            assert self.num_tasks is not None
            rows, looks = self._draw(self.task % self.num_tasks, self.train.labels, length, rng)
            self._kept = (self.task, rows, looks)
        start = self.position - self.task_start(self.task)
        own = slice(start, start + len(x))
        self._render(self.task, self.train, self._kept[1][own], self._kept[2][own], x, y)

    def _render(
        self, task: int, source: images.Dataset, rows: Array, looks: Array, x: Array, y: Array
    ) -> None:
        assert self.num_tasks is not None
        which = task % self.num_tasks
        inputs = source.inputs[rows]
        for look in np.unique(looks):
            mine = looks == look
            x[mine] = self._show(inputs[mine], int(look))
        offset = 0 if self._heads == "domain" else which * self._classes
        y[:] = self._label(which, source.labels[rows]) + offset

    def _examples(
        self, task: int, source: images.Dataset, n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Array]:
        rows, looks = self._draw(task, source.labels, n, rng)
        x = np.empty((len(rows), self.input_size), np.float32)
        y = np.empty(len(rows), np.int64)
        self._render(task, source, rows, looks, x, y)
        return x, y

    def test(self, task: int, n: int) -> tuple[NDArray[np.float32], Array]:
        """Held-out examples of a task; see `Stream.test`."""
        assert self.num_tasks is not None
        if not 0 <= task < self.num_tasks:
            raise UsageError(f"task: expected one from 0 to {self.num_tasks - 1}, got {task}")
        rng = numpy_generator(self.seed, f"stream/test/{task}")
        return self._examples(task, self.held_out, min(n, len(self.held_out.labels)), rng)

    def _draw_probe(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        assert self.num_tasks is not None
        n = min(n, len(self.train.labels))
        return self._examples(self.task % self.num_tasks, self.train, n, rng)[0]


@functools.cache
def parts(data: Data, input_range: InputRange) -> tuple[images.Dataset, images.Dataset]:
    """A data set's training part and the part that is held out.

    MNIST has a test part of its own. Of scikit-learn's digits every fifth is held out.
    """
    if data == "mnist":
        return images.mnist(input_range, "train"), images.mnist(input_range, "test")
    whole = images.digits(input_range)
    out = np.arange(len(whole.labels)) % 5 == 4
    train, held_out = (
        images.Dataset(whole.inputs[mine], whole.labels[mine], whole.num_classes)
        for mine in (~out, out)
    )
    return train, held_out


def passes(pool: Array, n: int, rng: np.random.Generator) -> Array:
    """The first `n` of shuffled passes over a pool, each pass shuffled anew."""
    count = -(-n // len(pool))
    return np.concatenate([rng.permutation(pool) for _ in range(count)] or [pool])[:n]


class Split(TaskStream):
    """Some of the ten digits a task: 0 and 1, then 2 and 3, and so on."""

    def __init__(
        self,
        seed: int,
        data: Data = SplitOptions.data,
        classes_per_task: int = SplitOptions.classes_per_task,
        task_length: int = SplitOptions.task_length,
        heads: Heads = SplitOptions.heads,
        input_range: InputRange = SplitOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.SplitOptions`.

        Raises:
            UsageError: `classes_per_task` does not divide 10, or MNIST is not to be had.
        """
        if CLASSES % classes_per_task:
            raise UsageError(f"classes_per_task: expected a divisor of 10, got {classes_per_task}")
        super().__init__(
            seed,
            data,
            input_range,
            heads,
            num_tasks=CLASSES // classes_per_task,
            classes=classes_per_task,
            task_length=task_length,
        )

    def _draw(
        self, task: int, labels: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        rows = passes(np.flatnonzero(labels // self._classes == task), n, rng)
        return rows, np.zeros(len(rows), np.int64)

    def _label(self, task: int, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return labels - task * self._classes


class PermutedTasks(TaskStream):
    """All digits, the pixels in an order of each task's own; the first task's too."""

    def __init__(
        self,
        seed: int,
        data: Data = PermutedTasksOptions.data,
        num_tasks: int = PermutedTasksOptions.num_tasks,
        task_length: int = PermutedTasksOptions.task_length,
        heads: Heads = PermutedTasksOptions.heads,
        input_range: InputRange = PermutedTasksOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.PermutedTasksOptions`.

        Raises:
            UsageError: MNIST is not to be had.
        """
        super().__init__(
            seed,
            data,
            input_range,
            heads,
            num_tasks=num_tasks,
            classes=CLASSES,
            task_length=task_length,
        )

    def _draw(
        self, task: int, labels: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        return passes(np.arange(len(labels)), n, rng), np.full(n, task)

    def _show(self, inputs: NDArray[np.float32], look: int) -> NDArray[np.float32]:
        rng = numpy_generator(self.seed, f"stream/tasks/{look}")
        return np.take(inputs, rng.permutation(self.input_size), axis=1)


class Rotated(TaskStream):
    """All digits, turned by another angle in each task: 0, `degrees`, twice `degrees`, ..."""

    def __init__(
        self,
        seed: int,
        data: Data = RotatedOptions.data,
        num_tasks: int = RotatedOptions.num_tasks,
        degrees: float = RotatedOptions.degrees,
        task_length: int = RotatedOptions.task_length,
        heads: Heads = RotatedOptions.heads,
        input_range: InputRange = RotatedOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.RotatedOptions`.

        Raises:
            UsageError: MNIST is not to be had.
        """
        self._degrees = degrees
        super().__init__(
            seed,
            data,
            input_range,
            heads,
            num_tasks=num_tasks,
            classes=CLASSES,
            task_length=task_length,
        )

    def _draw(
        self, task: int, labels: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        return passes(np.arange(len(labels)), n, rng), np.full(n, task)

    def _show(self, inputs: NDArray[np.float32], look: int) -> NDArray[np.float32]:
        return rotated(inputs, look * self._degrees, self._background)


class Months(TaskStream):
    """Months of data that drift: what is common changes, and so does how it looks.

    In month m, from 0, digit c of the stream's own order of the digits (drawn from the seed) has a
    share proportional to ``exp(-d^2 / (2 spread^2))``, where d is how far c is from the month's
    centre, ``m * drift``, round the circle of ten; and its images are turned by ``m * degrees``.
    The first task, the base, is made of the months from 0 to ``base_months - 1`` in equal shares;
    every later task is the month that follows.

    Examples of a month are drawn with replacement from the data set.
    """

    def __init__(
        self,
        seed: int,
        data: Data = MonthsOptions.data,
        months: int = MonthsOptions.months,
        base_months: int = MonthsOptions.base_months,
        base_length: int = MonthsOptions.base_length,
        task_length: int = MonthsOptions.task_length,
        drift: float = MonthsOptions.drift,
        spread: float = MonthsOptions.spread,
        degrees: float = MonthsOptions.degrees,
        heads: Heads = MonthsOptions.heads,
        input_range: InputRange = MonthsOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.MonthsOptions`.

        Raises:
            UsageError: MNIST is not to be had.
        """
        self._base_months = base_months
        self._drift, self._spread, self._degrees = drift, spread, degrees
        self._place = numpy_generator(seed, "stream/tasks").permutation(CLASSES)
        super().__init__(
            seed,
            data,
            input_range,
            heads,
            num_tasks=1 + months,
            classes=CLASSES,
            task_length=task_length,
            first_task_length=base_length,
        )

    def shares(self, month: int) -> NDArray[np.float64]:
        """Each digit's share in a month, [10]."""
        apart = np.abs(self._place - month * self._drift) % CLASSES
        apart = np.minimum(apart, CLASSES - apart)
        weights = np.exp(-(apart**2) / (2 * self._spread**2))
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def _draw(
        self, task: int, labels: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        if task:
            months = np.full(n, task + self._base_months - 1)
        else:
            months = rng.integers(self._base_months, size=n)
        limits = np.cumsum([self.shares(month) for month in range(months.max(initial=0) + 1)], 1)
        classes = (rng.random((n, 1)) * limits[months, -1:] >= limits[months]).sum(axis=1)
        order = np.argsort(labels, kind="stable")
        first = np.searchsorted(labels[order], np.arange(CLASSES + 1))
        sizes = np.diff(first)[classes]
        return order[first[classes] + (rng.random(n) * sizes).astype(np.int64)], months

    def _show(self, inputs: NDArray[np.float32], look: int) -> NDArray[np.float32]:
        return rotated(inputs, look * self._degrees, self._background)


def rotated(inputs: NDArray[np.float32], degrees: float, background: float) -> NDArray[np.float32]:
    """Square images turned about their centre.

    Args:
        inputs: [n, side * side].
        degrees: counter-clockwise, the first pixel being at the upper left.
        background: what lies outside of an image.

    Returns:
        [n, side * side], each pixel interpolated between the four around where it comes from.
    """
    if degrees % 360 == 0:
        return inputs
    index, weight = _sources(math.isqrt(inputs.shape[1]), degrees % 360)
    turned = np.full_like(inputs, background)
    for one, share in zip(index, weight, strict=True):
        turned += share * (inputs[:, one] - np.float32(background))
    return turned


@functools.lru_cache(maxsize=64)
def _sources(side: int, degrees: float) -> tuple[Array, NDArray[np.float32]]:
    """Where each pixel comes from: four pixels [4, side * side] and their weights."""
    centre, angle = (side - 1) / 2, math.radians(degrees)
    row, column = np.divmod(np.arange(side * side), side)
    down, right = row - centre, column - centre
    # Going back by the angle; rows count downwards.
    from_row = centre + down * math.cos(angle) + right * math.sin(angle)
    from_column = centre - down * math.sin(angle) + right * math.cos(angle)
    top, left = np.floor(from_row), np.floor(from_column)
    index, weight = [], []
    for rows, of_row in ((top, 1 - (from_row - top)), (top + 1, from_row - top)):
        for columns, of_column in (
            (left, 1 - (from_column - left)),
            (left + 1, from_column - left),
        ):
            inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
            index.append(np.where(inside, rows * side + columns, 0).astype(np.intp))
            weight.append(np.where(inside, of_row * of_column, 0).astype(np.float32))
    return np.stack(index), np.stack(weight)
