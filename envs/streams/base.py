"""What every stream is: an endless, seeded sequence of labelled examples in tasks."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clrl.errors import UsageError
from clrl.seeding import numpy_generator


class Stream(abc.ABC):
    """An endless sequence of examples that changes every `task_length` examples.

    The contract, which every stream keeps:

    * The sequence is decided by the seed and the options alone. It does not depend on how
      it is cut into calls of `next` and `fill`, nor on whether `probe` is called, nor on
      which other streams are alive.
    * The first task has `first_task_length` examples, every other `task_length`; a call may
      cross any number of task boundaries. A learner is not told about them.
    * All randomness comes from `clrl.seeding` with the stream's seed.
    * `state_dict` holds plain values that JSON can write. Loaded into a stream made with
      the same seed and options it restores the exact future.

    A subclass is constructed as ``Cls(seed, **options)``, calls this constructor, and
    writes two methods: `_write`, the next examples of one task, and `_draw_probe`, inputs
    of the current task. What they return is to be derived from `position`, `task` and
    generators named after them; whatever else a subclass remembers goes into `state_dict`.

    Attributes:
        seed: the seed of everything random here, an integer >= 0.
        input_size: numbers in one input.
        num_outputs: classes (classification) or numbers in one target (regression).
        kind: whether targets are classes or numbers.
        task_length: examples of one task, >= 1.
        first_task_length: examples of the first task, `task_length` unless it is set.
        num_tasks: how many different tasks there are, where they stay testable (`test`) and come
            again from the first; None where every task is new.
        head_size: classes that are told apart: ``y // head_size`` is known of an example, and
            only the outputs of that group compete. `num_outputs` unless there are several.
        position: examples handed out so far.
    """

    def __init__(
        self,
        seed: int,
        *,
        input_size: int,
        num_outputs: int,
        kind: Literal["classification", "regression"],
        task_length: int,
        first_task_length: int | None = None,
        num_tasks: int | None = None,
        head_size: int | None = None,
    ) -> None:
        """Start before the first example.

        Raises:
            UsageError: a task's length is not positive, or `seed` is negative.
        """
        if first_task_length is None:
            first_task_length = task_length
        if seed < 0:
            raise UsageError(f"seed: expected an integer >= 0, got {seed}")
        if min(task_length, first_task_length) < 1:
            length = min(task_length, first_task_length)
            raise UsageError(f"task_length: expected an integer >= 1, got {length}")
        self.seed = seed
        self.input_size = input_size
        self.num_outputs = num_outputs
        self.kind = kind
        self.task_length = task_length
        self.first_task_length = first_task_length
        self.num_tasks = num_tasks
        self.head_size = num_outputs if head_size is None else head_size
        self.position = 0

    @property
    def task(self) -> int:
        """Index of the task that the next example belongs to, from 0."""
        return self.task_at(self.position)

    def task_at(self, position: int) -> int:
        """Index of the task that an example belongs to, from 0."""
        return max(0, (position - self.first_task_length) // self.task_length + 1)

    def task_start(self, task: int) -> int:
        """Position of a task's first example."""
        return self.first_task_length + (task - 1) * self.task_length if task else 0

    def next(self, n: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Hand out the next `n` examples in arrays of their own.

        Args:
            n: how many, >= 0.

        Returns:
            inputs, float32 [n, input_size]; and targets, int64 [n] (classification) or
            float32 [n, num_outputs] (regression).
        """
        x = np.empty((n, self.input_size), np.float32)
        y: NDArray[Any]
        if self.kind == "classification":
            y = np.empty(n, np.int64)
        else:
            y = np.empty((n, self.num_outputs), np.float32)
        self.fill(x, y)
        return x, y

    def fill(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        """Write the next ``len(x)`` examples into arrays that the caller owns.

        The same examples as `next`, without its allocation; for a caller that reuses its
        buffers or stacks several streams.

        Args:
            x: float32 [n, input_size], overwritten; fastest where C-contiguous.
            y: int64 [n] or float32 [n, num_outputs] as for `next`, overwritten.
        """
        done = 0
        while done < len(x):
            left_in_task = self.task_start(self.task + 1) - self.position
            stop = min(len(x), done + left_in_task)
            self._write(x[done:stop], y[done:stop])
            self.position += stop - done
            done = stop

    def probe(self, n: int) -> NDArray[np.float32]:
        """Inputs of the current task for diagnostics; the stream is not disturbed.

        The current task is the one of the next example. The inputs come from a generator
        of (seed, task), so asking again within a task gives the same ones.

        Args:
            n: how many inputs are wanted.

        Returns:
            float32 [min(n, size of the data set), input_size], drawn without replacement.
        """
        return self._draw_probe(n, numpy_generator(self.seed, f"stream/probe/{self.task}"))

    def test(self, task: int, n: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Held-out examples of a task, which the stream never hands out; it is not disturbed.

        Args:
            task: its index, below `num_tasks`.
            n: how many are wanted.

        Returns:
            inputs, float32 [m, input_size]; and targets as of `next`, [m]; m is `n`, or less
            where there are not so many. The same ones for every call.

        Raises:
            UsageError: the tasks of this stream do not stay testable.
        """
        raise UsageError(f"{type(self).__name__} has no held-out examples")

    def state_dict(self) -> dict[str, Any]:
        """Everything besides seed and options that decides the future; JSON-able."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken.

        Args:
            state: from `state_dict` of a stream with the same seed and options.
        """
        self.position = int(state["position"])

    @abc.abstractmethod
    def _write(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        """Write ``len(x)`` examples, all of task `task`, the first being example `position`.

        `position` moves on after the call. Writing the examples in one call or in several
        must give the same.
        """

    @abc.abstractmethod
    def _draw_probe(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw at most `n` inputs of task `task` with `rng`; changes nothing else."""
