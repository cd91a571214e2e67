"""A stream of one's own: points in the plane, split by a line that turns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.envs.streams.base import Stream
from clrl.seeding import numpy_generator


class TurningLine(Stream):
    """Is a point on the left of a line through the origin? The line turns every task."""

    def __init__(self, seed: int, task_length: int = 100, degrees: float = 30.0) -> None:
        super().__init__(
            seed, input_size=2, num_outputs=2, kind="classification", task_length=task_length
        )
        self.degrees = degrees

    def _points(self, first: int, count: int) -> NDArray[np.float32]:
        # A generator for each example keeps the sequence the same however it is cut.
        points = [
            numpy_generator(self.seed, f"turning-line/{i}").uniform(-1, 1, 2)
            for i in range(first, first + count)
        ]
        return np.array(points, np.float32).reshape(count, 2)

    def _write(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        angle = np.deg2rad(self.degrees * self.task)
        x[:] = self._points(self.position, len(x))
        y[:] = x @ np.array([np.cos(angle), np.sin(angle)], np.float32) > 0

    def _draw_probe(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return rng.uniform(-1, 1, (n, 2)).astype(np.float32)
