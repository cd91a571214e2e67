"""``make bits``: are a seed's numbers the same alone, among others, divided otherwise and resumed?

    python tests/bits/bits.py [--short]

Each setting of the libraries has a process of its own, as they read it when they load. There every
case is trained with five seeds at once; then some seeds alone and others together, the five divided
otherwise, and the five from a state of half-way through under another division. All that was
recorded is compared, to the last bit, times apart. The table says for each setting how many of
these were equal, and what the processor is. Exit status 1 where one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLES = ("MKL_CBWR", "ATEN_CPU_CAPABILITY")
SETTINGS: tuple[Mapping[str, str], ...] = (
    {},
    {"MKL_CBWR": "COMPATIBLE"},
    {"MKL_CBWR": "AVX2"},
    {"MKL_CBWR": "AVX2,STRICT"},
    {"MKL_CBWR": "AUTO"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ATEN_CPU_CAPABILITY": "avx512"},
)
NEEDS = {"avx2": "avx2", "avx512": "avx512f"}
"""What a processor must have for a capability, as Linux calls it."""

SEEDS = (0, 1, 2, 3, 4)
OTHERS: tuple[tuple[tuple[int, ...], int | None], ...] = (
    ((0,), None),
    ((1, 3), None),
    (SEEDS, 1),
    (SEEDS, 2),
)
"""Seeds and a chunk size, to be held against all seeds in the division that suits them."""


@dataclass(frozen=True)
class Case:
    """What is trained; it is part of the short form or not."""

    name: str
    raw: Mapping[str, Any]
    short: bool = False


def stream(benchmark: str, optimizer: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A stream of short tasks at batch 1."""
    return {
        "benchmark": {"name": benchmark, "task_length": 60},
        "agent": {"name": "supervised", "diagnose_every": 10},
        "network": {"name": "mlp", "widths": [64, 32]},
        "optimizer": dict(optimizer),
        "steps": 120,
        "log_every": 40,
        **more,
    }


def ppo(task: str, optimizer: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """PPO on an environment that Gymnasium knows."""
    return {
        "benchmark": {"name": "gymnasium", "id": task},
        "agent": {"name": "ppo", "num_envs": 4, "num_steps": 32, "batch_size": 64, "epochs": 2},
        "network": {"name": "mlp", "widths": [64, 64], "activation": "tanh", "init": "orthogonal"},
        "optimizer": dict(optimizer),
        "steps": 512,
        "log_every": 256,
        **more,
    }


SGD = {"name": "sgd", "lr": 0.01}
ADAM = {"name": "adam", "lr": 3e-4}
REPLACING = [{"name": "continual-backprop", "replacement_rate": 0.1, "maturity_threshold": 5}]
_CASES = (
    Case("permuted digits, SGD", stream("permuted-digits", SGD), short=True),
    Case("permuted digits, UPGD", stream("permuted-digits", {"name": "upgd"})),
    Case(
        "permuted digits, 300-150, CBP over Adam",
        stream(
            "permuted-digits",
            ADAM,
            addons=REPLACING,
            network={"name": "mlp", "widths": [300, 150]},
        ),
    ),
    Case(
        "label-permuted digits, AdaUPGD, LayerNorm",
        stream(
            "label-permuted-digits",
            {"name": "adaupgd"},
            network={"name": "mlp", "widths": [33, 7], "activation": "tanh", "layer_norm": True},
        ),
    ),
    Case(
        "slow regression, shrink and perturb",
        stream(
            "slow-regression",
            SGD,
            addons=["shrink-and-perturb"],
            network={"name": "mlp", "widths": [5], "activation": "leaky-relu"},
        ),
    ),
    Case("PPO on CartPole, Adam", ppo("CartPole-v1", ADAM), short=True),
    Case("PPO on CartPole, CBP over Adam", ppo("CartPole-v1", ADAM, addons=REPLACING)),
    Case(
        "PPO on Pendulum, UPGD, a network of odd sizes",
        ppo(
            "Pendulum-v1",
            {"name": "upgd", "lr": 1e-3},
            network={"name": "mlp", "widths": [33, 65], "activation": "relu"},
        ),
    ),
    Case(
        "Stable-Baselines3's PPO on CartPole",
        {
            **ppo("CartPole-v1", ADAM),
            "agent": {"name": "sb3:PPO", "num_envs": 2, "n_steps": 32, "batch_size": 32},
            "steps": 256,
            "log_every": 128,
        },
    ),
)

# Once as users get them, compiled where that can be; and by operations of torch.
CASES = (
    *_CASES,
    *(
        Case(
            f"{case.name}, replayed",
            {**case.raw, "engine": "replay"},
            case.short and "digits" in case.name,
        )
        for case in _CASES
        if "LayerNorm" not in case.name and "Stable" not in case.name
    ),
)

Lines = dict[int, list[tuple[int, dict[str, float]]]]


class Sink:
    """Keeps what it is given, times apart."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take one line."""
        own = {key: value for key, value in values.items() if not key.startswith("time/")}
        self.lines.append((step, own))


def loop_of(raw: Mapping[str, Any], seeds: Sequence[int], chunk_size: int | None) -> Any:
    """The training loop of a configuration."""
    from clrl.settings.config import resolve
    from clrl.settings.values import Place
    from clrl.training.dispatch import training

    size = {} if chunk_size is None else {"chunk_size": chunk_size}
    return training(resolve({**raw, **size}, Place("bits")), list(seeds))


def record(raw: Mapping[str, Any], seeds: Sequence[int], chunk_size: int | None) -> Lines:
    """What training records, by seed."""
    sinks = {seed: Sink() for seed in seeds}
    loop_of(raw, seeds, chunk_size).run(sinks)
    return {seed: sink.lines for seed, sink in sinks.items()}


def record_resumed(raw: Mapping[str, Any], seeds: Sequence[int], chunk_size: int) -> Lines:
    """Half of it in the division that suits, and the rest from its state in another one."""
    from clrl.storage import checkpoint

    sinks = {seed: Sink() for seed in seeds}
    first = loop_of(raw, seeds, None)
    state = b""

    def halt(done: int, total: int) -> None:
        nonlocal state
        if done >= total / 2:
            state = checkpoint.pack({"loop": first.state_dict()})
            raise _Halt

    with contextlib.suppress(_Halt):
        first.run(sinks, halt)
    second = loop_of(raw, seeds, chunk_size)
    second.load_state_dict(checkpoint.unpack(state, Path("bits"))["loop"])
    second.run(sinks)
    return {seed: sink.lines for seed, sink in sinks.items()}


def differences(whole: Lines, part: Lines) -> dict[int, str]:
    """Where the records of some seeds begin to differ, by seed; only of those that do."""
    found = {}
    for seed, own in part.items():
        if json.dumps(own) != json.dumps(whole[seed]):  # NaN equals NaN there
            found[seed] = _first(whole[seed], own)
    return found


def compare(case: Case) -> dict[str, Any]:
    """Train a case in every way: what differed, and how members were computed."""
    sinks = {seed: Sink() for seed in SEEDS}
    loop = loop_of(case.raw, SEEDS, None)
    loop.run(sinks)
    whole = {seed: sink.lines for seed, sink in sinks.items()}
    ways = [
        (f"seeds {seeds}, chunk size {size}", record(case.raw, seeds, size))
        for seeds, size in OTHERS
    ]
    ways.append(("resumed, chunk size 1", record_resumed(case.raw, SEEDS, 1)))
    return {
        "case": case.name,
        "runs": sum(len(lines) for _, lines in ways),
        "differ": [
            f"{way}: seed {seed}: {where}"
            for way, lines in ways
            for seed, where in differences(whole, lines).items()
        ],
        "how": loop.evenness(),
    }


class _Halt(Exception):
    pass


def _first(whole: Sequence[Any], own: Sequence[Any]) -> str:
    """Where two records begin to differ."""
    for (step, values), (_, others) in zip(whole, own, strict=False):
        for key in values:
            if json.dumps(values[key]) != json.dumps(others.get(key)):
                return f"{key} at step {step}: {others.get(key)} for {values[key]}"
    return "another number of lines"


def child(short: bool) -> None:
    """Compare cases under the setting that this process was started with; print JSON."""
    from clrl.launch.process import set_up

    set_up()
    print(json.dumps([compare(case) for case in CASES if case.short or not short]))


def examine(setting: Mapping[str, str], short: bool) -> tuple[list[dict[str, Any]], float]:
    """A setting's comparisons, in a process of its own, and the seconds that they took."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    command = [sys.executable, __file__, "--child", *(["--short"] if short else [])]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environment |= {**setting, "SB3_LOGDIR": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{shown(setting)}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]), time.monotonic() - start


def shown(setting: Mapping[str, str]) -> str:
    """A setting in words."""
    return ", ".join(f"{key}={value}" for key, value in setting.items()) or "default"


def possible(settings: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The settings that this processor can have."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return [setting for setting in settings if "ATEN_CPU_CAPABILITY" not in setting]
    needed = [NEEDS.get(setting.get("ATEN_CPU_CAPABILITY", ""), "") for setting in settings]
    return [s for s, need in zip(settings, needed, strict=True) if not need or need in flags]


def main() -> int:
    """Compare under every setting, and print a row for each as it is done."""
    from clrl.storage.provenance import provenance

    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="two settings and two cases")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.short)
        return 0
    made_with = provenance()
    print(f"{made_with['processor']}, torch {made_with['torch']}, one thread; runs that equal")
    print("those of five seeds at once, to the last bit, in all that is recorded but times:")
    settings = possible(SETTINGS[:2] if options.short else SETTINGS)
    failed = False
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = pool.map(lambda setting: examine(setting, options.short), settings)
        for setting, (cases, seconds) in zip(settings, results, strict=True):
            total = sum(case["runs"] for case in cases)
            differ = [f"{case['case']}: {line}" for case in cases for line in case["differ"]]
            ways: dict[str, int] = {}
            for case in cases:
                ways[case["how"]] = ways.get(case["how"], 0) + 1
            how = "; ".join(f"{count} x {way}" for way, count in ways.items())
            print(f"{shown(setting):>30}: {total - len(differ):>4} of {total} equal", end="")
            print(f" ({len(cases)} cases: {how}; {seconds:.0f} s)", flush=True)
            for line in differ[:10]:
                print(f"    {line}")
            failed |= bool(differ)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
