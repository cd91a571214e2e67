"""Runs of Stable-Baselines3's algorithms: what is measured, when, and for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from clrl.agents import sb3
from clrl.cli.choices import read_run
from clrl.cli.main import main
from clrl.envs import control
from clrl.errors import UsageError
from clrl.settings.config import Choice, RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage.record import METRICS, read_metrics, read_status
from clrl.training.dispatch import training
from clrl.training.sb3 import SB3Training, _Seen

OFF: dict[str, Any] = {"buffer_size": 500, "learning_starts": 50, "batch_size": 16}
AGENTS: dict[str, dict[str, Any]] = {
    "PPO": {"num_envs": 2, "n_steps": 50, "batch_size": 25, "n_epochs": 2},
    "A2C": {"num_envs": 2},
    "DQN": OFF,
    "SAC": {**OFF, "train_freq": 4},
    "TD3": {**OFF, "train_freq": 4},
}
LOSSES = {
    "PPO": {"policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "loss"}
    | {"explained_variance"},
    "A2C": {"policy_loss", "value_loss", "entropy", "explained_variance"},
    "DQN": {"loss"},
    "SAC": {"actor_loss", "critic_loss", "ent_coef", "ent_coef_loss"},
    "TD3": {"actor_loss", "critic_loss"},
}


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        assert all(type(value) is float for value in values.values())
        self.lines.append((step, dict(values)))

    def of(self, key: str) -> list[tuple[int, float]]:
        return [(step, values[key]) for step, values in self.lines if key in values]

    def untimed(self) -> list[tuple[int, dict[str, str]]]:
        return [
            (step, {k: repr(v) for k, v in values.items() if not k.startswith("time/")})
            for step, values in self.lines
        ]


def config(name: str = "PPO", **raw: Any) -> RunConfig:
    continuous = name in {"SAC", "TD3"}
    settings: dict[str, Any] = {
        "benchmark": {"name": "gymnasium", "id": "Pendulum-v1"}
        if continuous
        else {"name": "offset-cartpole", "task_length": 150},
        "agent": {"name": f"sb3:{name}", **AGENTS[name]},
        "network": {"name": "mlp", "widths": [12, 8]},
        "optimizer": {"name": "adam", "lr": 0.001},
        "steps": 400,
        "log_every": 100,
        **raw,
    }
    return resolve(settings, Place("test"))


def run(settings: RunConfig, seeds: Sequence[int]) -> tuple[dict[int, Lines], dict[int, str]]:
    sinks = {seed: Lines() for seed in seeds}
    return sinks, training(settings, seeds).run(sinks, lambda done, total: None)


@pytest.mark.parametrize("name", AGENTS)
def test_every_algorithm_is_measured_and_can_be_repeated(name: str) -> None:
    settings = config(name, log_every=200)
    sinks, states = run(settings, [3, 4])
    assert states == {3: "finished", 4: "finished"}
    for sink in sinks.values():
        assert [step for step, _ in sink.of("online/episodes")] == [200, 400]
        _, last = sink.lines[-1]
        found = {key.partition("/")[2] for key in last if key.startswith(f"{name.lower()}/")}
        assert found == LOSSES[name]
        parts = ["network"] if name == "DQN" else ["actor", "critic"]
        for part in parts:
            for metric in ("dead_units", "effective_rank", "grad_norm", "weight_magnitude"):
                assert np.isfinite(last[f"plasticity/{part}/{metric}"])
            assert last[f"plasticity/{part}/weight_change"] > 0
            assert last[f"plasticity/{part}/probe_examples"] == 400
        assert last["time/steps_per_second"] > 0
    assert sinks[3].untimed() != sinks[4].untimed()
    alone, _ = run(settings, [4])
    assert alone[4].untimed() == sinks[4].untimed()


def test_tags_are_those_of_our_own_ppo() -> None:
    sinks, _ = run(config(), [0])
    own = {"name": "ppo", "num_envs": 2, "num_steps": 50, "batch_size": 25, "epochs": 2}
    ours, _ = run(config(agent=own), [0])
    theirs, expected = (
        {key for _, values in one[0].lines for key in values} for one in (sinks, ours)
    )
    # Its own gradient norm under the agent's name is that of the whole network.
    assert expected - theirs <= {"ppo/grad_norm"}
    assert theirs - expected == {"ppo/loss"} - expected


def test_returns_and_tasks_are_those_of_the_steps() -> None:
    """CartPole pays 1 a step, so returns are lengths and add up to the steps."""
    settings = config("A2C", steps=600, log_every=200)
    (sink,) = run(settings, [5])[0].values()
    lengths = 0.0
    counts = dict(sink.of("online/episodes"))
    for step, value in sink.of("online/return"):
        assert dict(sink.of("online/episode_length"))[step] == value
        lengths += value * counts[step]
    assert 450 < lengths <= 600
    assert [index for _, index in sink.of("task/index")] == [0, 1, 2, 3]
    # A change every 150 steps of both environments together.
    assert [step for step, _ in sink.of("task/index")] == [150, 300, 450, 600]
    tasks = [value for _, value in sink.of("task/return")]
    assert all(value > 0 for value in tasks)


def test_lines_come_after_updates() -> None:
    """Of rollouts of 150 steps, those that pass a multiple of 200, and the last."""
    agent = {"name": "sb3:PPO", "num_envs": 1, "n_steps": 150, "batch_size": 50, "n_epochs": 1}
    (sink,) = run(config(agent=agent, steps=500, log_every=200), [0])[0].values()
    assert [step for step, _ in sink.of("plasticity/actor/grad_norm")] == [300, 450, 500]


def test_the_probe_is_the_latest_observations() -> None:
    seen = _Seen(3)
    for i in range(1000):
        observations = np.full((3, 2), i) + np.arange(3)[:, None] / 10
        seen(observations, np.zeros(3), np.zeros(3, np.bool_), {})
    probe = seen.probe()
    assert probe.shape == (2000, 2)
    assert probe.dtype == torch.float32
    assert probe[-1].tolist() == pytest.approx([999.2, 999.2])
    assert probe[0].tolist() == pytest.approx([333.1, 333.1])


@pytest.mark.parametrize(
    "recipe",
    [
        control.OffsetCartPole(),
        control.ClassicControlCycle(),
        control.Stationary(),
        control.Stationary("FrozenLake-v1"),
    ],
)
def test_environments_are_left_to_reset(recipe: Any) -> None:
    envs = control.vector_of(recipe, 3, 1, AutoresetMode.DISABLED)
    assert envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED


def test_rules_and_addons_reach_the_learner() -> None:
    addons = [
        {"name": "continual-backprop", "maturity_threshold": 2, "replacement_rate": 0.1},
        {"name": "shrink-and-perturb", "noise_scale": 1e-3},
    ]
    plain, _ = run(config(), [0])
    others = [
        config(optimizer={"name": "upgd", "lr": 0.001}),
        *(config(addons=[addon]) for addon in addons),
    ]
    for settings in others:
        sinks, states = run(settings, [0])
        assert states == {0: "finished"}
        key = "plasticity/actor/weight_magnitude"
        assert sinks[0].of(key)[-1] != plain[0].of(key)[-1]


def test_one_that_diverges_stops_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    states = run(config(optimizer={"name": "sgd", "lr": 1e30}), [0, 1])[1]
    assert states == {0: "diverged", 1: "diverged"}

    learn = sb3.PPO.learn
    made: list[Any] = []

    def break_the_first(self: Any, *args: Any) -> None:
        made.append(self)
        if len(made) == 1:
            with torch.no_grad():
                self.model.policy.value_net.weight.fill_(torch.nan)
        learn(self, *args)

    expected = run(config(), [1])[0][1].untimed()
    monkeypatch.setattr(sb3.PPO, "learn", break_the_first)
    sinks, states = run(config(), [0, 1])
    assert states == {0: "diverged", 1: "finished"}
    assert sinks[0].lines == []
    assert sinks[1].untimed() == expected


def test_progress_covers_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clrl.training.sb3._REPORT_EVERY", 0.0)  # at every rollout
    calls: list[tuple[int, int]] = []
    agent = {"name": "sb3:A2C", "n_steps": 100}
    training(config(agent=agent, steps=1500, log_every=1500), [0, 1]).run(
        {0: Lines(), 1: Lines()}, lambda done, total: calls.append((done, total))
    )
    own = list(range(0, 1500, 100))
    expected = [*own, 1500, *(1500 + step for step in own), 3000]
    assert calls == [(step, 3000) for step in expected]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"benchmark": "permuted-digits"}, "permuted-digits is a stream, and PPO acts in control"),
        ({"benchmark": {"name": "gymnasium", "id": "No-v0"}}, "benchmark.id: No-v0: "),
        ({"agent": "sb3:SAC"}, "actions: sb3:SAC expected Box"),
        ({"network": {"name": "mlp", "layer_norm": True}}, "network.layer_norm: sb3:PPO has none"),
    ],
)
def test_mistakes_are_told_in_one_line(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        training(config(**raw), [0])
    assert "\n" not in str(caught.value)


def test_networks_of_others_are_refused() -> None:
    settings = config()
    other = replace(settings, network=Choice("package:Net", settings.network.options))
    with pytest.raises(UsageError, match="network: sb3:PPO builds its own; expected mlp, got pack"):
        training(other, [0])


def test_options_on_the_command_line() -> None:
    words = ["--benchmark", "gymnasium", "--benchmark.id", "Pendulum-v1", "--agent", "sb3:SAC"]
    settings, _ = read_run([*words, "--agent.ent-coef", "0.2", "--agent.num-envs", "2"])
    assert settings.agent.options.ent_coef == 0.2
    assert settings.agent.options.num_envs == 2
    assert settings.agent.options.buffer_size == 1_000_000
    assert read_run(words)[0].agent.options.ent_coef == "auto"
    assert isinstance(training(settings, [0]), SB3Training)


def test_from_the_command_line_to_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained_here: None
) -> None:
    out = tmp_path / "out"
    words = (
        "run --benchmark offset-cartpole --agent sb3:A2C --optimizer adam --seeds 0-1 --workers 1"
    )
    more = ["--steps", "200", "--log-every", "100", "--out", str(out)]
    assert main([*words.split(), *more]) == 0
    assert "sb3:A2C trains its seeds one after another" in "".join(capsys.readouterr())
    folders = sorted(out.glob("offset-cartpole/*/seed-*"))
    assert [folder.name for folder in folders] == ["seed-0", "seed-1"]
    for folder in folders:
        assert read_status(folder)["state"] == "finished"
        assert [line["step"] for line in read_metrics(folder / METRICS)] == [100, 200]
