"""Slowly-changing regression (Dohare et al. 2024), generated.

An input is 20 bits. The first 15 are slow: they stay for a task and change between tasks.
The last 5 are drawn anew for each example. The target is the output of a fixed random
network that is larger than the learner's, so that the learner has to follow the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clrl.envs.streams.base import Stream
from clrl.envs.streams.options import SlowRegressionOptions, Threshold
from clrl.errors import UsageError
from clrl.seeding import numpy_generator, seed_sequence

SLOW_BITS = 15
FRESH_BITS = 5
TARGET_UNITS = 100
BETA = 0.7


@dataclass(frozen=True, eq=False)
class TargetNetwork:
    r"""One hidden layer of linear-threshold units, linear output; all weights are ±1.

    Unit i fires (1, else 0) when ``w_i · x + b_i > (m + 1) β - S_i``, where m is the
    number of inputs and S_i the number of -1 among the m weights and the bias of the unit.
    The output is ``v · units + c``.

    Source: Dohare et al. 2024, slowly-changing regression: the paper. In the official code
    (``FixLTUNet``) S_i is the number of -1 among the weights plus b_i / 2, where the formula asks
    for (1 - b_i) / 2. There a unit whose bias is -1 needs two more matching bits to fire, fewer
    units do, and the target varies less.

    Attributes:
        weights: w, float32 [units, m], each ±1.
        biases: b, float32 [units], each ±1.
        output_weights: v, float32 [units], each ±1.
        output_bias: c, ±1.
        threshold: S_i as in the ``paper`` or in the ``official`` code.
        beta: β, the share of its m + 1 bits that a unit wants to see matched.
    """

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    output_weights: NDArray[np.float32]
    output_bias: float
    threshold: Threshold = "paper"
    beta: float = BETA

    @classmethod
    def draw(
        cls, rng: np.random.Generator, inputs: int, units: int, threshold: Threshold = "paper"
    ) -> TargetNetwork:
        """A random one: every weight and bias is -1 or 1 with equal chance."""
        signs = (2 * rng.integers(2, size=units * (inputs + 2) + 1) - 1).astype(np.float32)
        weights, biases, output_weights, output_bias = np.split(
            signs, [units * inputs, units * (inputs + 1), units * (inputs + 2)]
        )
        weights = weights.reshape(units, inputs)
        return cls(weights, biases, output_weights, float(output_bias[0]), threshold)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Targets of inputs.

        Args:
            x: bits as float32 [n, m].

        Returns:
            float32 [n, 1], integers, exact: every sum is of small integers.
        """
        of_bias = self.biases / 2 if self.threshold == "official" else self.biases < 0
        negative = (self.weights < 0).sum(axis=1) + of_bias
        bound = (self.weights.shape[1] + 1) * self.beta - negative
        fires = x @ self.weights.T + self.biases > bound
        target: NDArray[np.float32] = fires.astype(np.float32) @ self.output_weights[:, None]
        return target + np.float32(self.output_bias)


class SlowRegression(Stream):
    """Slowly-changing regression: 20 bits in, one number out.

    The target network, the first slow bits, their changes and the fresh bits each have a
    generator of their own, so that the target network is the same for every option.

    Args:
        seed: the stream's seed; it also draws the target network.
        task_length: examples between two changes of the slow bits.
        change: ``flip-one`` flips one random slow bit (the paper); ``redraw`` draws all of
            them anew (the official code's default data).
        threshold: of the target's units; see `TargetNetwork`.
    """

    def __init__(
        self,
        seed: int,
        task_length: int = SlowRegressionOptions.task_length,
        change: Literal["flip-one", "redraw"] = SlowRegressionOptions.change,
        threshold: Threshold = SlowRegressionOptions.threshold,
    ) -> None:
        """Options: `clrl.envs.streams.options.SlowRegressionOptions`."""
        super().__init__(
            seed,
            input_size=SLOW_BITS + FRESH_BITS,
            num_outputs=1,
            kind="regression",
            task_length=task_length,
        )
        if change not in ("flip-one", "redraw"):
            raise UsageError(f"change: expected one of flip-one, redraw, got {change!r}")
        if threshold not in ("paper", "official"):
            raise UsageError(f"threshold: expected one of paper, official, got {threshold!r}")
        self.change = change
        self.target = TargetNetwork.draw(
            numpy_generator(seed, "stream/target"), self.input_size, TARGET_UNITS, threshold
        )
        self._task_index = 0
        self._slow = numpy_generator(seed, "stream/tasks/0").integers(2, size=SLOW_BITS)
        self._fresh = self._fresh_bits_from(0)

    def slow_bits(self) -> NDArray[np.int64]:
        """The current task's slow bits, int64 [15]."""
        while self._task_index < self.task:
            self._task_index += 1
            rng = numpy_generator(self.seed, f"stream/tasks/{self._task_index}")
            if self.change == "flip-one":
                self._slow[rng.integers(SLOW_BITS)] ^= 1
            else:
                self._slow = rng.integers(2, size=SLOW_BITS)
        return self._slow.copy()

    def state_dict(self) -> dict[str, Any]:
        """The position and the current slow bits."""
        return {**super().state_dict(), "slow_bits": self.slow_bits().tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken."""
        super().load_state_dict(state)
        self._task_index = self.task
        self._slow = np.array(state["slow_bits"], np.int64)
        self._fresh = self._fresh_bits_from(self.position)

    def _fresh_bits_from(self, position: int) -> np.random.Generator:
        """The generator of fresh bits, as it is before example `position`."""
        bits = np.random.PCG64(seed_sequence(self.seed, "stream/inputs"))
        return np.random.Generator(bits.advance(FRESH_BITS * position))

    def _write(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        x[:, :SLOW_BITS] = self.slow_bits()
        # `random` takes exactly one step of the generator for each number, which is what
        # makes the sequence independent of its cuts and lets `_fresh_bits_from` advance.
        x[:, SLOW_BITS:] = self._fresh.random((len(x), FRESH_BITS)) < 0.5
        y[:] = self.target(x)

    def _draw_probe(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """At most all 32 inputs that the task has, in random order."""
        numbers = rng.permutation(2**FRESH_BITS)[:n]
        fresh = numbers[:, None] >> np.arange(FRESH_BITS) & 1
        slow = np.broadcast_to(self.slow_bits(), (len(numbers), SLOW_BITS))
        return np.concatenate([slow, fresh], axis=1).astype(np.float32)
