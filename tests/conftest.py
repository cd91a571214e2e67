"""What all tests share: one torch thread a process, and where MNIST is."""

import os
from pathlib import Path

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
