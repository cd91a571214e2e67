"""Streams over a data set whose inputs or labels are permuted anew for each task.

Examples come in shuffled passes over the whole set, reshuffled after each pass; passes
and tasks have nothing to do with each other. The order of a pass and the permutation of a
task are functions of (seed, index), so that the position alone is a stream's state, and
the data are never rearranged in memory: a permuted example is an index operation. The
first task is permuted like all others.

Sources: input permutation as in Goodfellow et al. 2013 and, online, Dohare et al. 2024
and Elsayed & Mahmood 2024 (UPGD); label permutation as in the latter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.envs.streams import data
from clrl.envs.streams.base import Stream
from clrl.envs.streams.options import (
    InputRange,
    LabelPermutedDigitsOptions,
    LabelPermutedMNISTOptions,
    PermutedDigitsOptions,
    PermutedMNISTOptions,
)
from clrl.seeding import numpy_generator


class _DatasetStream(Stream):
    """What both have in common: passes over the data, a permutation for each task.

    Args:
        seed: the stream's seed.
        dataset: the examples.
        permuted: how many things the permutations are over.
        task_length: examples between two changes.
    """

    def __init__(
        self, seed: int, dataset: data.Dataset, *, permuted: int, task_length: int
    ) -> None:
        super().__init__(
            seed,
            input_size=dataset.inputs.shape[1],
            num_outputs=dataset.num_classes,
            kind="classification",
            task_length=task_length,
        )
        self.dataset = dataset
        self._permuted = permuted
        # The latest order and permutation, each kept with its index until another is needed.
        self._pass_index, self._order = -1, np.empty(0, np.intp)
        self._task_index, self._permutation = -1, np.empty(0, np.intp)

    @property
    def permutation(self) -> NDArray[np.intp]:
        """The current task's permutation, of the pixels or of the classes."""
        if self._task_index != self.task:
            rng = numpy_generator(self.seed, f"stream/tasks/{self.task}")
            self._task_index, self._permutation = self.task, rng.permutation(self._permuted)
        return self._permutation

    def _rows(self, count: int) -> NDArray[np.intp]:
        """Which rows of the data the next `count` examples are, [count]."""
        size = len(self.dataset.labels)
        rows = np.empty(count, np.intp)
        done = 0
        while done < count:
            index, start = divmod(self.position + done, size)
            if self._pass_index != index:
                rng = numpy_generator(self.seed, f"stream/order/{index}")
                self._pass_index, self._order = index, rng.permutation(size)
            piece = self._order[start : start + count - done]
            rows[done : done + len(piece)] = piece
            done += len(piece)
        return rows

    def _probe_rows(self, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """At most `n` different rows of the data."""
        return rng.permutation(len(self.dataset.labels))[:n]


class InputPermuted(_DatasetStream):
    """A data set whose input numbers are permuted anew for each task.

    Input number j of an example is number ``permutation[j]`` of the data set's row.

    Args:
        seed: the stream's seed.
        dataset: the examples.
        task_length: examples between two changes of the permutation.
    """

    def __init__(self, seed: int, dataset: data.Dataset, *, task_length: int) -> None:
        """Start before the first example."""
        super().__init__(seed, dataset, permuted=dataset.inputs.shape[1], task_length=task_length)

    def _write(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        rows = self._rows(len(x))
        # Rows, then columns within them; 'clip' lets NumPy write into x without a buffer.
        np.take(self.dataset.inputs[rows], self.permutation, axis=1, out=x, mode="clip")
        y[:] = self.dataset.labels[rows]

    def _draw_probe(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return np.take(self.dataset.inputs[self._probe_rows(n, rng)], self.permutation, axis=1)


class LabelPermuted(_DatasetStream):
    """A data set whose classes are permuted anew for each task.

    An example of class c is handed out with the label ``permutation[c]``.

    Args:
        seed: the stream's seed.
        dataset: the examples.
        task_length: examples between two changes of the permutation.
    """

    def __init__(self, seed: int, dataset: data.Dataset, *, task_length: int) -> None:
        """Start before the first example."""
        super().__init__(seed, dataset, permuted=dataset.num_classes, task_length=task_length)

    def _write(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        rows = self._rows(len(x))
        np.take(self.dataset.inputs, rows, axis=0, out=x, mode="clip")
        y[:] = self.permutation[self.dataset.labels[rows]]

    def _draw_probe(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return self.dataset.inputs[self._probe_rows(n, rng)]


class PermutedMNIST(InputPermuted):
    """The 60,000 training images of MNIST, pixels permuted anew for each task."""

    def __init__(
        self,
        seed: int,
        task_length: int = PermutedMNISTOptions.task_length,
        input_range: InputRange = PermutedMNISTOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.PermutedMNISTOptions`.

        Raises:
            UsageError: MNIST is not to be had (`clrl.envs.streams.data.mnist`).
        """
        super().__init__(seed, data.mnist(input_range, "train"), task_length=task_length)


class LabelPermutedMNIST(LabelPermuted):
    """The 60,000 training images of MNIST, labels permuted anew for each task."""

    def __init__(
        self,
        seed: int,
        task_length: int = LabelPermutedMNISTOptions.task_length,
        input_range: InputRange = LabelPermutedMNISTOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.LabelPermutedMNISTOptions`.

        Raises:
            UsageError: MNIST is not to be had (`clrl.envs.streams.data.mnist`).
        """
        super().__init__(seed, data.mnist(input_range, "train"), task_length=task_length)


class PermutedDigits(InputPermuted):
    """The 1,797 digits of scikit-learn, pixels permuted anew for each task."""

    def __init__(
        self,
        seed: int,
        task_length: int = PermutedDigitsOptions.task_length,
        input_range: InputRange = PermutedDigitsOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.PermutedDigitsOptions`."""
        super().__init__(seed, data.digits(input_range), task_length=task_length)


class LabelPermutedDigits(LabelPermuted):
    """The 1,797 digits of scikit-learn, labels permuted anew for each task."""

    def __init__(
        self,
        seed: int,
        task_length: int = LabelPermutedDigitsOptions.task_length,
        input_range: InputRange = LabelPermutedDigitsOptions.input_range,
    ) -> None:
        """Options: `clrl.envs.streams.options.LabelPermutedDigitsOptions`."""
        super().__init__(seed, data.digits(input_range), task_length=task_length)
