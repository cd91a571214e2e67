"""What all tests share: one torch thread a process, and where MNIST is."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings

# Read by torch, MKL and BLAS when they load, here and in processes that tests start; so
# nothing heavy is imported for tests that do without.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"


# How long an example takes says something about the machine, not about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder that ``$CLRL_DATA`` names; tests that need real MNIST skip without it."""
    folder = os.environ.get("CLRL_DATA")
    if not folder:
        pytest.skip("needs MNIST: set CLRL_DATA to the folder that holds it")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _logs_of_stable_baselines3(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where its loggers make their folders."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("sb3"))


class _Here:
    """A worker that is no process: it trains where the test runs, which has loaded torch."""

    request: tuple[Any, ...] | None = None

    def send(self, request: tuple[Any, ...]) -> None:
        self.request = request

    def receive(self) -> list[tuple[str, Any]]:
        from clrl.launch import worker
        from clrl.training import dispatch

        trainer = worker._Torch.__new__(worker._Torch)  # this process is set up already
        trainer._train = dispatch
        request, self.request = self.request, None
        assert request is not None
        sent: list[tuple[str, Any]] = []
        worker._serve(SimpleNamespace(send=sent.append), trainer, *request)  # type: ignore[arg-type]
        return [message for message in sent if message[0] != "pid"]

    def interrupt(self) -> None:
        """There is nobody to interrupt it."""


@contextlib.contextmanager
def _here() -> Iterator[None]:
    from clrl.launch.local import LocalCrew

    def wait(_: LocalCrew, workers: Any, seconds: float) -> list[_Here]:
        return [one for one in workers if one.request is not None]

    ways: dict[str, Callable[..., Any]] = {
        "start": lambda _: _Here(),
        "wait": wait,
        "end": lambda *_: None,
        "hold": lambda *_: None,
    }
    with mock.patch.multiple(LocalCrew, **ways):
        yield


@pytest.fixture(scope="session")
def here() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Inside of what it gives, runs are trained in this process: a worker takes seconds to start.

    For tests that are about something else than processes.
    """
    return _here


@pytest.fixture
def trained_here() -> Iterator[None]:
    """The whole test is inside of `here`."""
    with _here():
        yield
