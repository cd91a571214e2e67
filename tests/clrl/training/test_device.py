"""Populations on another device, on a machine that has none.

What a GPU would do is not computed here. `Placing` computes nothing at all: its tensors have
shapes, types and a place, and torch refuses operations between places as it does on a GPU. The
other device is called ``meta`` then.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.optim import optimizer

from clrl.agents import population
from clrl.agents.device import CPU, device_of
from clrl.agents.networks import MLP
from clrl.agents.optim import continual_backprop, rule
from clrl.agents.optim.members import Flat
from clrl.agents.optim.noise import normal
from clrl.agents.optim.rule import StackedOptimizer, UpdateRule
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.options import MLPOptions
from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.launch.jobs import Job
from clrl.launch.plan import remaining
from clrl.settings.config import RunConfig, config_hash, resolve, to_dict
from clrl.settings.values import Place
from clrl.storage import checkpoint, record
from clrl.storage.provenance import changes, provenance
from clrl.training.dispatch import training
from clrl.training.loop import placed

ELSEWHERE = "meta"


class Placing(FakeTensorMode):
    """Runs a program with tensors that have a place and no content.

    Where the program asks for content, numbers are 0, flags are false, and nothing is found.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return {torch.bool: False, torch.int64: 0}.get(args[0].dtype, 0.0)
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((0, args[0].ndim), dtype=torch.int64)
        if func is torch.ops.aten._fused_sgd_.default:  # torch has no stand-in for this one
            assert len({tensor.device for column in args for tensor in column}) == 1
            return None
        return super().__torch_dispatch__(func, types, args, kwargs)


def content(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    assert tensor.device == CPU, "asked for the content of what is elsewhere"
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def really(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is to see no stand-ins: what it makes has content, and is on the CPU."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return call


@pytest.fixture
def placing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside it, ``meta`` stands for a GPU."""
    monkeypatch.setattr(FakeTensor, "numpy", content, raising=False)
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: content(self.cpu()).tolist())
    monkeypatch.setattr(MLP, "__init__", really(MLP.__init__))
    # What does not depend on the device is found out beforehand, with real numbers.
    monkeypatch.setattr(population, "mixes_members", lambda rule: False)
    monkeypatch.setattr(rule, "_draws_globally", lambda rule: False)
    devices = ["cpu", ELSEWHERE]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: devices)
    with Placing():
        yield


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        self.lines.append((step, dict(values)))


class Nowhere:
    def write(self, step: int, values: dict[str, float]) -> None:
        assert all(type(value) is float for value in values.values())


def stream(**raw: Any) -> RunConfig:
    return resolve(
        {
            "benchmark": {"name": "slow-regression"},
            "network": {"name": "mlp", "widths": [8, 8]},
            "optimizer": {"name": "adam"},
            "steps": 4,
            "log_every": 2,
            **raw,
        },
        Place("test"),
    )


def control(**raw: Any) -> RunConfig:
    agent = {"name": "ppo", "num_envs": 2, "num_steps": 4, "batch_size": 4, "epochs": 1}
    return stream(
        **{
            "benchmark": {"name": "offset-cartpole", "task_length": 300},
            "agent": agent | raw.pop("agent", {}),
            "steps": 16,
            "log_every": 8,
            **raw,
        }
    )


class TestPlacing:
    """The stand-in notices what a GPU would refuse."""

    def test_two_places(self, placing: None) -> None:
        there = torch.ones(3, device=ELSEWHERE)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        assert (there + torch.ones(3).to(ELSEWHERE)).device.type == ELSEWHERE

    def test_content(self, placing: None) -> None:
        with pytest.raises(AssertionError, match="elsewhere"):
            torch.ones(3, device=ELSEWHERE).numpy()
        assert torch.ones(3, device=ELSEWHERE).cpu().numpy().shape == (3,)


@pytest.mark.usefixtures("placing")
class TestEverythingIsWhereItShouldBe:
    """Whole runs, diagnostics and checkpoints included."""

    def carry_out(self, settings: RunConfig) -> None:
        seeds = [0, 1, 2]
        loop = training(settings, seeds, ELSEWHERE)
        assert set(loop.run(dict.fromkeys(seeds, Nowhere())).values()) == {"finished"}
        population = loop.agent.population  # type: ignore[union-attr]
        assert population.rows.device.type == ELSEWHERE
        assert loop.state_dict()

    @pytest.mark.parametrize("name", [entry.name for entry in OPTIMIZERS if entry.name != "kron"])
    def test_optimizers(self, name: str) -> None:
        """All but kron, which draws where parameters are, and refuses."""
        if name == "soap":
            pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed")
        self.carry_out(stream(optimizer={"name": name, "lr": 1e-3}))

    @pytest.mark.parametrize("name", [entry.name for entry in ADDONS])
    def test_addons(self, name: str) -> None:
        self.carry_out(stream(addons=[{"name": name}]))

    @pytest.mark.parametrize("optimizer", ["adam", "adaupgd"])
    @pytest.mark.parametrize(
        "addon", [{"name": "plasticity-injection", "after": 2}, {"name": "full-reset", "every": 2}]
    )
    def test_surgery(self, optimizer: str, addon: dict[str, Any]) -> None:
        self.carry_out(stream(optimizer=optimizer, addons=[addon]))

    @pytest.mark.parametrize("penalty", ["infer", {"name": "parseval", "diagonal": True}])
    def test_penalties_with_parameters(self, penalty: Any) -> None:
        self.carry_out(control(penalties=[penalty]))

    @pytest.mark.parametrize(
        "options",
        [
            {"utility": "adaptable-contribution", "transfer_bias": True},
            {"replacement": "probabilistic"},
        ],
    )
    def test_units_started_anew(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replaced = []

        def due(addon: Any, layer: Any, features: Any) -> Iterator[tuple[int, torch.Tensor]]:
            addon._observe(layer, layer.features(features))
            replaced.append(layer.name)
            yield 1, torch.arange(2, device=ELSEWHERE)

        monkeypatch.setattr(continual_backprop.ContinualBackprop, "due", due)
        self.carry_out(stream(addons=[{"name": "continual-backprop", **options}]))
        assert set(replaced) == {"layer_1", "layer_2"}

    def test_noise_of_the_initialiser(self) -> None:
        addon = {"name": "shrink-and-perturb", "noise": "initializer", "shrink": 0.9}
        self.carry_out(stream(addons=[addon]))

    def test_classification(self) -> None:
        benchmark = {"name": "permuted-digits", "task_length": 2}
        self.carry_out(stream(benchmark=benchmark, network={"name": "mlp", "layer_norm": True}))

    @pytest.mark.parametrize(
        "agent",
        [
            {"normalize_observations": True, "normalize_rewards": "gymnasium", "anneal_lr": True},
            {
                "target_kl": 0.1,
                "value_clip": "max",
                "normalize_advantages": "batch",
                "shared": True,
            },
        ],
    )
    def test_ppo(self, agent: dict[str, Any]) -> None:
        self.carry_out(control(agent=agent))

    def test_real_actions(self) -> None:
        self.carry_out(control(benchmark={"name": "gymnasium", "id": "Pendulum-v1"}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnAGPU:
    """A GPU and the CPU agree, to a thousandth, as long as no two actions are nearly as good."""

    def both(self, settings: RunConfig) -> list[tuple[Any, list[Any]]]:
        made = []
        for device in ("cpu", "cuda"):
            loop = training(settings, [0, 1, 2], device)
            sinks = {seed: Lines() for seed in range(3)}
            loop.run(sinks)
            made.append((loop, [sink.lines for sink in sinks.values()]))
        return made

    @pytest.mark.parametrize("settings", [stream(steps=50, log_every=50), control()])
    def test_they_agree(self, settings: RunConfig) -> None:
        (here, ours), (there, theirs) = self.both(settings)
        torch.testing.assert_close(
            there.agent.population.rows.cpu(), here.agent.population.rows, rtol=1e-3, atol=1e-3
        )
        for mine, its in zip(ours, theirs, strict=True):
            for (step, line), (other_step, other) in zip(mine, its, strict=True):
                assert (step, line.keys()) == (other_step, other.keys())
                for key in ("online/loss", "online/return", "ppo/policy_loss"):
                    expected = pytest.approx(line.get(key, 0.0), rel=1e-3, abs=1e-3)
                    assert other.get(key, 0.0) == expected

    def test_it_goes_on_from_its_state(self) -> None:
        loop = training(control(), [0, 1], "cuda")
        list(itertools.islice(loop.steps(dict.fromkeys([0, 1], Nowhere())), 1))
        saved = checkpoint.unpack(checkpoint.pack(loop.state_dict()), Path("test"))
        again = training(control(), [0, 1], "cuda")
        again.load_state_dict(saved)
        for one in (loop, again):
            one.run(dict.fromkeys([0, 1], Nowhere()))
        torch.testing.assert_close(again.agent.population.rows, loop.agent.population.rows)


class TestNoise:
    def test_the_bits_are_drawn_on_the_cpu(self, placing: None) -> None:
        generator = torch.Generator().manual_seed(0)
        assert normal(10, 1.0, [generator], torch.device(ELSEWHERE)).device.type == ELSEWHERE


class TestDeviceOf:
    def test_the_cpu(self) -> None:
        assert device_of("cpu") == CPU

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", None)
        with pytest.raises(UsageError, match="--device cuda: .* is built without CUDA here$"):
            device_of("cuda")
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        with pytest.raises(UsageError, match="--device cuda: .* sees none here$"):
            device_of("cuda")

    def test_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert device_of("cuda").type == "cuda"


class TestTraining:
    def test_stable_baselines_stays_on_the_cpu(self) -> None:
        settings = resolve(
            {"benchmark": {"name": "gymnasium"}, "agent": {"name": "sb3:PPO"}}, Place("test")
        )
        with pytest.raises(UsageError, match="--device meta: sb3:PPO .* expected --device cpu"):
            training(settings, [0], ELSEWHERE)

    def test_an_agent_that_takes_no_device(self) -> None:
        def agent(seeds: Any) -> None:
            """One of somebody's own."""

        assert placed(agent, CPU) == {}
        with pytest.raises(UsageError, match="--device meta: agent takes no device"):
            placed(agent, torch.device(ELSEWHERE))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("words", [["run", "--out", "out"], ["bench", "ppo"]])
    def test_no_gpu_is_one_line(
        self,
        words: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        trained_here: None,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main([*words, "--device", "cuda"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("clrl: error: ")
        assert "--device cuda: expected a GPU, but torch " in line
        assert not list(tmp_path.iterdir())

    def test_another_device_is_another_condition(self, tmp_path: Path) -> None:
        config = stream()
        folder = tmp_path / "b" / "l" / "seed-0"
        job = Job("b/l", config, {0: folder}, device="cuda")
        record.start_run(folder, 0, to_dict(config), config_hash(config), "cuda", population=[0])
        record.end_run(folder, "preempted")
        checkpoint.write(folder, checkpoint.pack({}))
        record.files.write_atomically(tmp_path / "suite.yaml", b"")
        (left,) = remaining([job], tmp_path)
        assert (left.resumes, left.device) == (True, "cuda")
        with pytest.raises(UsageError, match="other conditions: device cuda -> cpu; .* --force"):
            remaining([replace(job, device="cpu")], tmp_path)


class Restless(torch.optim.SGD):
    """An optimizer with noise from torch's global generator."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.add_(torch.randn_like(parameter))
        return super().step(closure)


class TestStackedOptimizer:
    def test_a_global_generator_elsewhere(self) -> None:
        made = UpdateRule(Restless, {"lr": 0.1})
        rows = torch.zeros(2, 64, device=ELSEWHERE)
        rows.grad = torch.zeros_like(rows)
        network = MLP(2, 1, MLPOptions(widths=(3,)), torch.Generator())
        generators = [torch.Generator(), torch.Generator()]
        with pytest.raises(UsageError, match="Restless: draws from torch's global generator"):
            StackedOptimizer(made, rows, Flat(network), network, generators, True, {})


class TestProvenance:
    def test_a_device_decides_the_numbers(self) -> None:
        assert changes(provenance("cuda"), provenance()) == ["device cuda -> cpu"]
        assert changes(provenance(), provenance("cpu")) == []
