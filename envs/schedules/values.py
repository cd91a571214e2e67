"""To what something changes: sequences of values, one for each task.

Each class is a description and holds no state. Value k belongs to task k (or to the k-th
change, where the first task leaves the environment as it is). Drifts advance by one unit a
change: with `Continuously`, by one a step.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clrl.errors import UsageError, shown

Array = NDArray[Any]
Generator = np.random.Generator
Kind = Literal["real", "integer", "boolean", "permutation"]
_DTYPES = {"real": np.float64, "integer": np.int64, "boolean": np.bool_, "permutation": np.int64}


@dataclass(frozen=True)
class Domain:
    """The values that a change takes.

    Attributes:
        what: names the change in messages, such as ``"Physics length"``.
        kind: numbers, whole numbers, truth values, or one permutation of ``0 .. n - 1``.
        neutral: the value that changes nothing; its shape is the shape of all values.
        low: smallest allowed values, broadcast to that shape.
        high: largest allowed values.
        expected: the allowed values in words.
    """

    what: str
    kind: Kind
    neutral: Array
    low: ArrayLike = -math.inf
    high: ArrayLike = math.inf
    expected: str = "finite numbers"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value."""
        return self.neutral.shape

    @property
    def dtype(self) -> type[np.generic]:
        """What a value is made of."""
        return _DTYPES[self.kind]

    def value(self, given: Any, where: str) -> Array:
        """A value that a user wrote, checked.

        Args:
            given: a number for all entries, or one an entry.
            where: begins the message, such as ``"Cycle.values"``.

        Raises:
            UsageError: it does not fit.
        """
        fault = UsageError(f"{where}: {self.what} takes {self.expected}, got {shown(given)}")
        array = _array(given)
        if array is None or not np.all(np.isfinite(array)):
            raise fault
        try:
            value = np.broadcast_to(array, self.shape).astype(self.dtype)
        except ValueError as error:
            raise fault from error
        if not np.array_equal(value, array + np.zeros_like(value)):
            raise fault
        if self.kind == "permutation":
            fits = np.array_equal(np.sort(value), np.arange(len(value)))
        else:
            fits = self.holds(value, value)
        if not fits:
            raise fault
        return value

    def holds(self, low: Array, high: Array) -> bool:
        """Whether all numbers from `low` to `high` are allowed."""
        return bool(
            np.all(low >= self.low) and np.all(high <= self.high) and not np.any(np.isnan(low))
        )


class Values(abc.ABC):
    """A sequence of values.

    A subclass is a frozen dataclass that says which kinds it makes and writes `bounds` and
    `draw`.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("real",)

    def check(self, domain: Domain) -> None:
        """Refuse a domain that the values do not fit.

        Raises:
            UsageError: the message names both.
        """
        name = type(self).__name__
        if domain.kind not in self.kinds:
            raise UsageError(f"{name}: {domain.what} takes {domain.expected}; {name} draws others")
        low, high = self.bounds(domain)
        self.draw(np.arange(1), None, np.random.default_rng(0), domain)  # all parameters fit
        if not domain.holds(low, high):
            raise UsageError(
                f"{name}: {domain.what} takes {domain.expected}, "
                f"got values from {np.min(low):g} to {np.max(high):g}"
            )

    @abc.abstractmethod
    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """The smallest and the largest value of each entry, infinite where there is none."""

    @abc.abstractmethod
    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """The values that follow.

        Drawing them in one call or in several gives the same.

        Args:
            index: int64 [n], their indices: consecutive numbers, n >= 1.
            last: the value before the first of them, [*domain.shape]; ``None`` before
                value 0.
            rng: the generator, as the value before left it.
            domain: what the values are for.

        Returns:
            [n, *domain.shape], of the domain's dtype.
        """


def _array(given: Any) -> Array | None:
    """Numbers that a user gave, as an array; ``None`` for what is no such thing."""
    try:
        array = np.asarray(given)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in "iufb" else None


def _plain(numbers: Any) -> Any:
    """Lists as tuples, which compare, do not change and are shown on one line."""
    return tuple(map(_plain, numbers)) if isinstance(numbers, list) else numbers


def _keep(values: Values, expected: str, fits: Callable[[Array], Any], *fields: str) -> None:
    """Check fields that hold numbers, and keep them as plain floats or tuples of such."""
    for field in fields:
        given = getattr(values, field)
        array = _array(given)
        if array is None or not np.all(fits(array)):
            name = type(values).__name__
            raise UsageError(f"{name}.{field}: expected {expected}, got {shown(given)}")
        object.__setattr__(values, field, _plain(array.astype(np.float64).tolist()))


def _is_amount(x: Array) -> Array:
    return (x >= 0) & (x < math.inf)


def _check_order(values: Values, low: str, high: str) -> None:
    below, above = getattr(values, low), getattr(values, high)
    try:
        in_order = bool(np.all(np.asarray(below) <= np.asarray(above)))
    except ValueError:
        in_order = False
    if not in_order:
        raise UsageError(
            f"{type(values).__name__}: expected {low} <= {high}, "
            f"got {shown(below)} and {shown(above)}"
        )


def _check_start(values: LinearDrift | RandomWalk, start: str) -> None:
    """Of a drift: where it starts lies within its bounds, and these may be infinite."""
    _keep(values, "finite numbers", np.isfinite, start)
    _keep(values, "numbers or -inf", lambda x: x < math.inf, "low")
    _keep(values, "numbers or inf", lambda x: x > -math.inf, "high")
    _check_order(values, "low", "high")
    _check_order(values, "low", start)
    _check_order(values, start, "high")


def _full(given: ArrayLike, domain: Domain, where: str) -> NDArray[np.float64]:
    """Numbers for every entry or for each, as an array of the domain's shape."""
    try:
        return np.array(np.broadcast_to(np.asarray(given, np.float64), domain.shape))
    except ValueError as error:
        raise UsageError(
            f"{where}: expected a number, or an array of shape {domain.shape}, got {shown(given)}"
        ) from error


def _column(index: Array, domain: Domain) -> NDArray[np.float64]:
    """Indices as numbers that broadcast against values, [n, 1, ...]."""
    return index.astype(np.float64).reshape(-1, *[1] * len(domain.shape))


@dataclass(frozen=True)
class Cycle(Values):
    """Listed values in turn, again and again.

    Attributes:
        values: at least one; each a number for all entries, or one an entry.
    """

    values: Sequence[Any]
    kinds = ("real", "integer", "boolean", "permutation")

    def __post_init__(self) -> None:
        """Check."""
        object.__setattr__(self, "values", _listed("Cycle", self.values))

    def check(self, domain: Domain) -> None:
        """See `Values.check`."""
        _stacked("Cycle", self.values, domain)

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        stacked = _stacked("Cycle", self.values, domain)
        return stacked.min(axis=0), stacked.max(axis=0)

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        return _picked(self.values, index % len(self.values), domain)


@dataclass(frozen=True)
class Choice(Values):
    """One of the listed values, drawn anew for every task; the same may come twice.

    Attributes:
        values: at least one, as for `Cycle`.
        probabilities: one a value, with sum 1; equal unless given.
    """

    values: Sequence[Any]
    probabilities: Sequence[float] | None = None
    kinds = ("real", "integer", "boolean", "permutation")

    def __post_init__(self) -> None:
        """Check."""
        object.__setattr__(self, "values", _listed("Choice", self.values))
        if self.probabilities is None:
            return
        _keep(
            self,
            f"one in [0, 1] for each of the {len(self.values)} values, with sum 1",
            lambda x: x.shape == (len(self.values),) and (x >= 0).all() and np.isclose(x.sum(), 1),
            "probabilities",
        )

    def check(self, domain: Domain) -> None:
        """See `Values.check`."""
        _stacked("Choice", self.values, domain)

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        stacked = _stacked("Choice", self.values, domain)
        return stacked.min(axis=0), stacked.max(axis=0)

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        weights = self.probabilities or [1 / len(self.values)] * len(self.values)
        edges = np.cumsum(weights)
        picked = np.searchsorted(edges / edges[-1], rng.random(len(index)), side="right")
        return _picked(self.values, picked, domain)


def _listed(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """As plain tuples; what is in them is checked against the domain."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        raise UsageError(f"{name}.values: expected a list, got {shown(values)}")
    listed = tuple(
        value if (array := _array(value)) is None else _plain(array.tolist()) for value in values
    )
    if not listed:
        raise UsageError(f"{name}.values: expected at least one value, got none")
    return listed


def _stacked(name: str, values: Sequence[Any], domain: Domain) -> Array:
    return np.stack([domain.value(value, f"{name}.values") for value in values])


def _picked(values: Sequence[Any], index: Array, domain: Domain) -> Array:
    """Some of the listed values, which have been checked."""
    shape, dtype = domain.shape, domain.dtype
    return np.stack([np.broadcast_to(np.asarray(values[i], dtype), shape) for i in index])


@dataclass(frozen=True)
class Uniform(Values):
    """Numbers drawn uniformly from [low, high), entry by entry.

    Attributes:
        low: a number, or one an entry.
        high: a number, or one an entry.
    """

    low: ArrayLike
    high: ArrayLike

    def __post_init__(self) -> None:
        """Check."""
        _keep(self, "finite numbers", np.isfinite, "low", "high")
        _check_order(self, "low", "high")

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        return _full(self.low, domain, "Uniform.low"), _full(self.high, domain, "Uniform.high")

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        low, high = self.bounds(domain)
        return low + (high - low) * rng.random((len(index), *domain.shape))


@dataclass(frozen=True)
class LogUniform(Values):
    """Numbers whose logarithm is uniform: as often in [.02, .2) as in [.2, 2).

    Attributes:
        low: > 0; a number, or one an entry.
        high: a number, or one an entry.
    """

    low: ArrayLike
    high: ArrayLike

    def __post_init__(self) -> None:
        """Check."""
        _keep(self, "finite numbers > 0", lambda x: (x > 0) & (x < math.inf), "low", "high")
        _check_order(self, "low", "high")

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        return (
            _full(self.low, domain, "LogUniform.low"),
            _full(self.high, domain, "LogUniform.high"),
        )

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        low, high = self.bounds(domain)
        exponents = np.log(low) + (np.log(high) - np.log(low)) * rng.random(
            (len(index), *domain.shape)
        )
        return np.clip(np.exp(exponents), low, high)


@dataclass(frozen=True)
class Normal(Values):
    """Normal numbers, entry by entry.

    Attributes:
        mean: a number, or one an entry.
        std: standard deviation, >= 0; a number, or one an entry.
    """

    mean: ArrayLike = 0.0
    std: ArrayLike = 1.0

    def __post_init__(self) -> None:
        """Check."""
        _keep(self, "finite numbers", np.isfinite, "mean")
        _keep(self, "finite numbers >= 0", _is_amount, "std")

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        mean, std = _full(self.mean, domain, "Normal.mean"), _full(self.std, domain, "Normal.std")
        reach = np.where(std > 0, np.inf, 0.0)
        return mean - reach, mean + reach

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        mean, std = _full(self.mean, domain, "Normal.mean"), _full(self.std, domain, "Normal.std")
        return mean + std * rng.standard_normal((len(index), *domain.shape))


@dataclass(frozen=True)
class RandomPermutation(Values):
    """A fresh permutation for every task, all of them equally likely."""

    kinds = ("permutation",)

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        n = domain.shape[0]
        return np.zeros(n, np.int64), np.full(n, n - 1)

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        return np.stack([rng.permutation(domain.shape[0]) for _ in index])


@dataclass(frozen=True)
class RandomMask(Values):
    """Truth values, each true with the same probability.

    Attributes:
        probability: in [0, 1].
    """

    probability: float
    kinds = ("boolean",)

    def __post_init__(self) -> None:
        """Check."""
        _keep(
            self,
            "a number in [0, 1]",
            lambda x: x.ndim == 0 and (x >= 0) & (x <= 1),
            "probability",
        )

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        return np.zeros(domain.shape, np.bool_), np.ones(domain.shape, np.bool_)

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        return rng.random((len(index), *domain.shape)) < self.probability


@dataclass(frozen=True)
class LinearDrift(Values):
    """A straight line that turns round at its bounds.

    Attributes:
        start: the first value, within the bounds; a number, or one an entry.
        slope: what is added from one value to the next.
        low: lower bound; may be -inf.
        high: upper bound; may be inf.
    """

    start: ArrayLike
    slope: ArrayLike
    low: ArrayLike = -math.inf
    high: ArrayLike = math.inf

    def __post_init__(self) -> None:
        """Check."""
        _keep(self, "finite numbers", np.isfinite, "slope")
        _check_start(self, "start")

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        low = _full(self.low, domain, "LinearDrift.low")
        return low, _full(self.high, domain, "LinearDrift.high")

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        low, high = self.bounds(domain)
        first = _full(self.start, domain, "LinearDrift.start")
        slope = _full(self.slope, domain, "LinearDrift.slope")
        # Whole turns go first, so that no line is too steep.
        turn = 2 * (high - low)
        whole = np.isfinite(turn) & (turn > 0)
        slope = np.where(whole, np.fmod(slope, np.where(whole, turn, 1.0)), slope)
        slope = np.where(turn == 0, 0.0, slope)
        straight = first + slope * _column(index, domain)
        return reflect(straight, low, high)


@dataclass(frozen=True)
class SinusoidalDrift(Values):
    """``mean + amplitude * sin(2 pi (k / period + phase))`` for value k.

    Attributes:
        mean: a number, or one an entry.
        amplitude: >= 0; a number, or one an entry.
        period: changes from one crest to the next, > 0; a number, or one an entry.
        phase: where it starts, in periods.
    """

    mean: ArrayLike
    amplitude: ArrayLike
    period: ArrayLike
    phase: ArrayLike = 0.0

    def __post_init__(self) -> None:
        """Check."""
        _keep(self, "finite numbers", np.isfinite, "mean", "phase")
        _keep(self, "finite numbers >= 0", _is_amount, "amplitude")
        _keep(self, "finite numbers > 0", lambda x: (x > 0) & (x < math.inf), "period")

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        mean = _full(self.mean, domain, "SinusoidalDrift.mean")
        amplitude = _full(self.amplitude, domain, "SinusoidalDrift.amplitude")
        return mean - amplitude, mean + amplitude

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        low, high = self.bounds(domain)
        phase = _full(self.phase, domain, "SinusoidalDrift.phase")
        period = _full(self.period, domain, "SinusoidalDrift.period")
        turns = _column(index, domain) / period + phase
        wave = np.sin(2 * np.pi * (turns % 1.0))
        return np.clip((low + high) / 2 + (high - low) / 2 * wave, low, high)


@dataclass(frozen=True)
class RandomWalk(Values):
    """An Ornstein-Uhlenbeck walk that starts at its mean and turns round at its bounds.

    ``x' = x + pull * (mean - x) + std * noise`` with standard normal noise (the
    Euler-Maruyama form with a step of one); without pull it is a plain random walk.

    Attributes:
        mean: where it starts and is drawn to, within the bounds; a number, or one an entry.
        std: standard deviation of one step, >= 0.
        pull: share of the way back to the mean in one step, in [0, 1].
        low: lower bound; may be -inf.
        high: upper bound; may be inf.
    """

    mean: ArrayLike
    std: ArrayLike
    pull: float = 0.0
    low: ArrayLike = -math.inf
    high: ArrayLike = math.inf

    def __post_init__(self) -> None:
        """Check."""
        _check_start(self, "mean")
        _keep(self, "finite numbers >= 0", _is_amount, "std")
        _keep(self, "a number in [0, 1]", lambda x: x.ndim == 0 and (x >= 0) & (x <= 1), "pull")

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """See `Values.bounds`."""
        low = _full(self.low, domain, "RandomWalk.low")
        return low, _full(self.high, domain, "RandomWalk.high")

    def draw(self, index: Array, last: Array | None, rng: Generator, domain: Domain) -> Array:
        """See `Values.draw`."""
        low, high = self.bounds(domain)
        mean = _full(self.mean, domain, "RandomWalk.mean")
        steps = _full(self.std, domain, "RandomWalk.std") * rng.standard_normal(
            (len(index), *domain.shape)
        )
        values = np.empty((len(index), *domain.shape))
        for i in range(len(index)):
            if last is None:  # its noise is drawn and not used, so that all draws are alike
                last = mean
            else:
                last = reflect(last + self.pull * (mean - last) + steps[i], low, high)
            values[i] = last
        return values


def reflect(
    x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fold numbers into [low, high], as if they bounced off the bounds.

    Args:
        x: any shape.
        low: lower bounds, broadcast against `x`; may be -inf.
        high: upper bounds, >= `low`; may be inf.
    """
    span = high - low
    bounded = np.isfinite(span) & (span > 0)
    width = np.where(bounded, span, 1.0)
    floor = np.where(np.isfinite(low), low, 0.0)
    inside = (x - floor) % (2 * width)
    folded = floor + np.where(inside > width, 2 * width - inside, inside)
    one_sided = np.where(x < low, 2 * floor - x, x)
    ceiling = np.where(np.isfinite(high), high, 0.0)
    one_sided = np.where(x > high, 2 * ceiling - x, one_sided)
    between = (x >= low) & (x <= high)
    return np.clip(np.where(between, x, np.where(bounded, folded, one_sided)), low, high)
