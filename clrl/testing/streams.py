"""What streams promise."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.benchmarks import BENCHMARKS
from clrl.envs.streams.base import Stream
from clrl.testing.elsewhere import elsewhere
from clrl.testing.promises import Broken, Check, Subject, difference, load

Examples = tuple[NDArray[Any], NDArray[Any]]


def check_stream(stream: Subject, **options: Any) -> tuple[str, ...]:
    """Hold a stream against what every `Stream` promises; see its class.

    Short tasks make it quick: three are gone through many times.

    Args:
        stream: the class, or a name.
        options: its own, such as ``task_length=7``.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    make, name = load(stream, BENCHMARKS)
    check = Check(name)

    def made(seed: int = 3) -> Stream:
        one: Stream = make(seed, **options)
        return one

    with check.promise("made from a seed and options"):
        first = made()
        if not isinstance(first, Stream):
            raise Broken(f"expected a clrl.envs.Stream, got {type(first).__name__}")
    length = first.task_start(2) + min(first.task_length, 5)
    _check_examples(check, made)
    check.own_randomness(lambda: list(made().next(length)))
    _check_cuts(check, made, length)
    _check_tasks(check, made)
    _check_probe(check, made)
    _check_seeds(check, made, length)
    _check_state(check, make, options, length)
    if first.num_tasks:
        _check_test(check, made)
    return tuple(check.held)


def _check_examples(check: Check, made: Callable[..., Stream]) -> None:
    with check.promise("shapes, types and ranges as declared"):
        stream = made()
        for n in (0, 1, 5, 40):
            _expect_examples(stream, stream.next(n), n)


def _expect_examples(stream: Stream, examples: Examples, n: int) -> None:
    x, y = examples
    if x.shape != (n, stream.input_size) or x.dtype != np.float32:
        raise Broken(f"inputs of {x.dtype}{[*x.shape]}; expected float32{[n, stream.input_size]}")
    if not np.isfinite(x).all():
        raise Broken("an input is not finite")
    if stream.kind == "classification":
        if y.shape != (n,) or y.dtype != np.int64:
            raise Broken(f"labels of {y.dtype}{[*y.shape]}; expected int64{[n]}")
        if n and not (0 <= y.min() and y.max() < stream.num_outputs):
            raise Broken(f"labels from {y.min()} to {y.max()}; expected [0, {stream.num_outputs})")
    elif y.shape != (n, stream.num_outputs) or y.dtype != np.float32:
        raise Broken(f"targets of {y.dtype}{[*y.shape]}; expected float32{[n, stream.num_outputs]}")
    elif not np.isfinite(y).all():
        raise Broken("a target is not finite")


def _check_cuts(check: Check, made: Callable[..., Stream], length: int) -> None:
    """The sequence is the same, however it is handed out, and whoever else is there."""
    whole = made().next(length)
    with check.promise("the same however it is cut"):
        source = random.Random(0)
        bounds = [made().task_start(task) for task in (1, 2)]
        cuts = [bounds, [bound + 1 for bound in bounds], list(range(1, min(length, 40)))]
        cuts += [sorted(source.sample(range(1, length), min(6, length - 1))) for _ in range(8)]
        for cut in cuts:
            stream, start, pieces = made(), 0, []
            for stop in (*cut, length):
                pieces.append(stream.next(stop - start))
                start = stop
            if stream.position != length:
                raise Broken(f"its position is {stream.position} after {length} examples")
            _expect_same(whole, _joined(pieces), f"cut at {', '.join(map(str, cut[:6]))}")
    with check.promise("shares nothing with other streams"):
        one, other, pieces = made(), made(11), []
        for _ in range(6):
            pieces.append(one.next(length // 6))
            other.next(7)
        _expect_same(made().next(length // 6 * 6), _joined(pieces), "beside another")
    with check.promise("fill writes what next gives"):
        stream, (x, y) = made(), whole
        inputs = np.full((length, 2, stream.input_size), np.nan, np.float32)
        targets = np.full((length, 2, *y.shape[1:]), -1, y.dtype)
        stream.fill(inputs[:, 0], targets[:, 0])
        _expect_same(whole, (inputs[:, 0], targets[:, 0]), "into every other row")
        if not (np.isnan(inputs[:, 1]).all() and (targets[:, 1] == -1).all()):
            raise Broken("it writes beside what it was given")
    with check.promise("what is handed out is the caller's"):
        stream, reference = made(), made()
        for _ in range(4):
            x, y = stream.next(9)
            probe = stream.probe(4)
            _expect_same(reference.next(9), (x, y), "after a change of earlier examples")
            x[:], y[:], probe[:] = 99, 99, 99


def _check_tasks(check: Check, made: Callable[..., Stream]) -> None:
    with check.promise("tasks begin where they are declared to"):
        stream = made()
        first, length = stream.first_task_length, stream.task_length
        for task, start in ((0, 0), (1, first), (2, first + length)):
            stream.next(start - stream.position)
            found = (stream.position, stream.task, stream.task_start(task))
            if found != (start, task, start):
                raise Broken(f"at example {start}: (position, task, its start) is {found}")
            if start and stream.task_at(start - 1) != task - 1:
                raise Broken(f"example {start - 1} is of task {stream.task_at(start - 1)}")


def _check_probe(check: Check, made: Callable[..., Stream]) -> None:
    with check.promise("a probe disturbs nothing and stays for a task"):
        disturbed, alone, ahead = made(), made(), made()
        before = disturbed.probe(6)
        if before.dtype != np.float32 or before.shape[1:] != (alone.input_size,):
            raise Broken(f"it is of {before.dtype}{[*before.shape]}")
        size = max(1, alone.first_task_length // 4)
        for _ in range(10):
            first, again = disturbed.probe(6), disturbed.probe(6)
            if difference(first, again):
                raise Broken(f"two at example {disturbed.position} differ")
            _expect_same(alone.next(size), disturbed.next(size), "after a probe")
        begun, ahead = made(), made()
        begun.next(begun.task_start(1))
        ahead.next(ahead.task_start(2) - 1)
        if difference(begun.probe(6), ahead.probe(6)):
            raise Broken("those at the start and the end of task 1 differ")
        if not difference(begun.probe(6), before):
            raise Broken("those of tasks 0 and 1 are the same")


def _check_seeds(check: Check, made: Callable[..., Stream], length: int) -> None:
    with check.promise("seeds independent"):
        firsts = [made(seed).next(max(length, 50)) for seed in range(6)]
        for i, one in enumerate(firsts):
            for j, two in enumerate(firsts[:i]):
                for what, a, b in zip(("inputs", "targets"), one, two, strict=True):
                    if not difference(a, b):
                        raise Broken(f"seeds {j} and {i} give the same {what}")


def _check_state(
    check: Check, make: Callable[..., Stream], options: Mapping[str, Any], length: int
) -> None:
    with check.promise("its state restores the future"):
        start = make(3, **options).task_start
        positions = {0, 1, start(1) - 1, start(1), start(1) + 1, start(2) - 1, start(2), length}
        positions |= set(random.Random(1).sample(range(length), min(12, length)))
        states, futures = [], []
        for position in sorted(positions):
            stream, other = make(3, **options), make(3, **options)
            stream.next(position)
            state = json.loads(json.dumps(stream.state_dict()))
            kept = stream.state_dict()
            other.next(position // 2 + 3)
            other.probe(2)
            other.load_state_dict(state)
            if (other.position, other.task) != (position, stream.task):
                raise Broken(f"at example {position}: loaded, it is at {other.position}")
            if difference(state, json.loads(json.dumps(other.state_dict()))):
                raise Broken(f"at example {position}: loaded and saved again, it is another")
            if difference(stream.probe(4), other.probe(4)):
                raise Broken(f"at example {position}: loaded, it has another probe")
            future = stream.next(length)
            _expect_same(future, other.next(length), f"from example {position}")
            stream.load_state_dict(kept)  # it is a copy, and the stream comes back to it
            _expect_same(future, stream.next(length), f"back at example {position}")
            states.append(state)
            futures.append(list(future))
    with check.promise("its state comes back in a new process"):
        found = elsewhere(_futures, make, dict(options), states, length)
        for state, expected, got in zip(states, futures, found, strict=True):
            _expect_same(expected, got, f"from example {state.get('position')}")


def _futures(
    make: Callable[..., Stream], options: Mapping[str, Any], states: list[Any], length: int
) -> list[Any]:
    found = []
    for state in states:
        stream = make(3, **options)
        stream.load_state_dict(state)
        found.append(list(stream.next(length)))
    return found


def _check_test(check: Check, made: Callable[..., Stream]) -> None:
    with check.promise("held-out examples stay and disturb nothing"):
        stream, alone = made(), made()
        for task in range(stream.num_tasks or 0):
            x, y = stream.test(task, 8)
            _expect_examples(stream, (x, y), len(x))
            _expect_same((x, y), stream.test(task, 8), f"task {task} once more")
            _expect_same(alone.next(5), stream.next(5), "after a test")


def _expect_same(expected: Any, found: Any, where: str) -> None:
    for what, one, two in zip(("inputs", "targets"), expected, found, strict=True):
        if difference(one, two):
            rows = one.reshape(len(one), -1), two.reshape(len(two), -1)
            apart = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
            raise Broken(f"{where}: {what} differ from the {apart[0] + 1 if len(apart) else 1}. on")


def _joined(pieces: list[Examples]) -> Examples:
    return np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces])
