"""What a run has learned acts as it did among its siblings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clrl
from clrl.envs.control import OffsetCartPole
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.storage import checkpoint, record
from clrl.training.dispatch import training
from clrl.training.trials import Trials

PPO: dict[str, Any] = {
    "benchmark": {"name": "offset-cartpole", "task_length": 500},
    "agent": {
        "name": "ppo",
        "num_envs": 4,
        "num_steps": 64,
        "batch_size": 64,
        "epochs": 2,
        "normalize_observations": True,
        "test_episodes": 3,
        "test_statistics": "present",
    },
    "network": {"name": "mlp", "widths": [16, 8]},
    "optimizer": {"name": "adam", "lr": 1e-2},
    "steps": 1536,
    "log_every": 256,
}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, here: Callable[[], AbstractContextManager[None]]
) -> Path:
    out = tmp_path_factory.mktemp("policy")
    with here():
        clrl.run(**PPO, seeds=[3, 5, 8], out=out, workers=1, quiet=True)
    return out / "offset-cartpole" / "adam"


def observations(n: int) -> Any:
    return np.random.default_rng(0).normal(size=(n, 4))


def test_acts_as_the_population_does_to_the_bit(folder: Path) -> None:
    # The population as it went on from the checkpoint, which lies with the first seed.
    config = resolve(record.read_config(folder / "seed-3"), Place("test"))
    loop: Any = training(config, [3, 5, 8])
    loop.load_state_dict(checkpoint.read(folder / "seed-3" / checkpoint.NAME)["loop"])
    seen = observations(50)
    together = loop.agent.answer(np.concatenate([seen] * 3)).reshape(3, 50)
    assert len({row.tobytes() for row in together}) > 1  # the members differ
    for member, seed in enumerate((3, 5, 8)):
        policy = clrl.load_policy(folder / f"seed-{seed}")
        np.testing.assert_array_equal(policy.act(seen), together[member])
        np.testing.assert_array_equal(policy(seen), together[member])
        assert policy.act(seen[7]) == together[member][7]
        assert policy.seed == seed and policy.step == 1536
        for name, value in policy.network.named_parameters():
            assert torch.equal(value, loop.agent.population.parameters()[name][member])


def test_returns_what_the_last_test_of_the_run_returned(folder: Path) -> None:
    policy = clrl.load_policy(folder / "seed-5")
    last = record.read_metrics(folder / "seed-5" / "metrics.jsonl")[-1]
    trials = Trials(OffsetCartPole(task_length=500), [5], episodes=3)
    assert policy.last_task is not None and policy.last_task >= 2
    for index, value in enumerate(trials.values(0, policy.last_task)):
        returns = trials.returns(policy.act, index, value[None])
        assert returns.shape == (1, 3)
        assert returns.mean() == last[f"retention/return/{index}"]


def test_draws_by_its_own_generator_and_takes_the_likeliest_otherwise(folder: Path) -> None:
    seen = np.zeros((200, 4))
    policy = clrl.load_policy(folder / "seed-8")
    drawn = policy.act(seen, deterministic=False)
    assert set(drawn.tolist()) == {0, 1}
    assert len(set(policy.act(seen).tolist())) == 1
    again = clrl.load_policy(folder / "seed-8")
    torch.manual_seed(1)
    np.testing.assert_array_equal(again.act(seen, deterministic=False), drawn)


def test_normalises_by_frozen_statistics(folder: Path) -> None:
    policy = clrl.load_policy(folder / "seed-3")
    state = checkpoint.read(folder / "seed-3" / checkpoint.NAME)["loop"]["agent"]
    mean, var = (np.array(state["normalizers"][0][name][0]) for name in ("mean", "var"))
    seen = observations(50)
    scaled = np.clip((seen - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
    outputs, _, _ = policy.network(torch.from_numpy(scaled))
    np.testing.assert_array_equal(policy.act(seen), outputs.argmax(-1).numpy())
    policy.act(1000 + seen)
    np.testing.assert_array_equal(policy.act(seen), outputs.argmax(-1).numpy())


def test_continuous_actions_keep_to_their_bounds(tmp_path: Path, trained_here: None) -> None:
    given = PPO | {"benchmark": {"name": "gymnasium", "id": "Pendulum-v1"}}
    given["agent"] = {k: v for k, v in PPO["agent"].items() if k != "test_episodes"}
    clrl.run(**(given | {"steps": 256}), out=tmp_path, quiet=True)
    policy = clrl.load_policy(tmp_path / "Pendulum-v1/adam/seed-0")
    assert policy.act(np.zeros(3)).shape == (1,)
    drawn = policy.act(np.zeros((100, 3)), deterministic=False)
    assert drawn.shape == (100, 1) and policy.action_space is not None
    assert np.abs(drawn).max() == 2.0  # Pendulum's bound


def test_a_streams_run_gives_what_its_network_gives(tmp_path: Path, trained_here: None) -> None:
    clrl.run(
        {"name": "permuted-digits", "task_length": 20},
        network={"name": "mlp", "widths": [4]},
        steps=40,
        log_every=20,
        seeds=[0, 1],
        out=tmp_path,
        workers=1,
        quiet=True,
    )
    policy = clrl.load_policy(tmp_path / "permuted-digits/sgd/seed-1")
    inputs = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    expected = policy.network(torch.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(policy.act(inputs), expected, rtol=1e-4, atol=1e-6)
    assert policy.act(inputs[0]).shape == (10,)
    assert policy.observation_space is None and policy.last_task is None
    with pytest.raises(clrl.UsageError, match="deterministic: expected true"):
        policy.act(inputs, deterministic=False)


class TestMistakes:
    def test_of_observations(self, folder: Path) -> None:
        policy = clrl.load_policy(folder / "seed-3")
        for shape in ((5,), (2, 5), (1, 2, 4), ()):
            with pytest.raises(clrl.UsageError, match=r"observations: expected \(4,\)"):
                policy.act(np.zeros(shape))

    @pytest.mark.parametrize("part", ["", "..", "../..", "nowhere"])
    def test_of_folders(self, folder: Path, part: str) -> None:
        with pytest.raises(clrl.UsageError, match="expected a run's folder, such as"):
            clrl.load_policy(folder / part)

    def test_a_damaged_checkpoint_gives_way_to_the_one_before(
        self, folder: Path, tmp_path: Path
    ) -> None:
        copied = tmp_path / "adam"
        shutil.copytree(folder, copied)
        home = copied / "seed-3"
        shutil.copy(home / checkpoint.NAME, home / checkpoint.PREVIOUS)
        (home / checkpoint.NAME).write_bytes(b"torn")
        assert clrl.load_policy(copied / "seed-5").step == 1536
        (home / checkpoint.PREVIOUS).unlink()
        with pytest.raises(clrl.UsageError, match="not a checkpoint of this version"):
            clrl.load_policy(copied / "seed-5")
        (home / checkpoint.NAME).unlink()
        with pytest.raises(clrl.UsageError, match="no checkpoint yet"):
            clrl.load_policy(copied / "seed-5")

    def test_nothing_that_a_folder_names_is_imported(self, folder: Path, tmp_path: Path) -> None:
        copied = tmp_path / "adam"
        shutil.copytree(folder, copied)
        path = copied / "seed-3" / "config.yaml"
        path.write_text(path.read_text().replace("name: adam", "name: 'torch.optim:Adam'"))
        with pytest.raises(clrl.UsageError, match="trust=True"):
            clrl.load_policy(copied / "seed-3")

    def test_stable_baselines3_keeps_no_learner(self, folder: Path, tmp_path: Path) -> None:
        copied = tmp_path / "adam"
        shutil.copytree(folder, copied)
        path = copied / "seed-3" / "config.yaml"
        text = record.read_config(copied / "seed-3") | {"agent": {"name": "sb3:PPO"}}
        path.write_text(record.to_yaml({"seed": 3, **text}))
        with pytest.raises(clrl.UsageError, match="sb3:PPO keeps no finished learner"):
            clrl.load_policy(copied / "seed-3")
