"""Sweeps: what lists in a learner stand for, and what a suite makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from annotated_types import Gt

from clrl import suites
from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.settings.config import to_dict
from clrl.settings.values import Place, nesting
from clrl.storage import record

BASE: dict[str, Any] = {"benchmark": "permuted-digits", "seeds": "0-2"}


def made(learners: dict[str, Any], **more: Any) -> suites.Suite:
    return suites.from_mapping({**BASE, **more, "learners": learners}, Place("s.yaml"), "s")


def test_a_list_becomes_a_learner_a_value() -> None:
    found = made({"adam": {"optimizer": {"name": "adam", "lr": ["1e-3", 0.0001, 1]}}})
    assert list(found.learners) == ["adam+lr=0.001", "adam+lr=0.0001", "adam+lr=1.0"]
    rates = [config.optimizer.options.lr for config in found.learners.values()]
    assert rates == [0.001, 0.0001, 1.0]
    assert found.sweeps == dict.fromkeys(found.learners, "adam")
    alone = made({"adam": {"optimizer": {"name": "adam", "lr": 0.0001}}})
    assert found.learners["adam+lr=0.0001"] == alone.learners["adam"]


def test_several_lists_give_their_product() -> None:
    learner = {
        "optimizer": {"name": "continual-backprop", "base": "adam", "lr": [0.1, 0.2],
                      "replacement_rate": [0, 1e-5]},
        "network": {"name": "mlp", "widths": [[8], [8, 4]], "layer_norm": [True, False]},
    }  # fmt: skip
    found = made({"a": learner, "b": {"optimizer": "sgd"}})
    assert len(found.learners) == 2**4 + 1
    assert list(found.learners)[:3] == [
        "a+lr=0.1+replacement_rate=0.0+widths=8+layer_norm=true",
        "a+lr=0.1+replacement_rate=0.0+widths=8+layer_norm=false",
        "a+lr=0.1+replacement_rate=0.0+widths=8,4+layer_norm=true",
    ]
    one = found.learners["a+lr=0.2+replacement_rate=1e-05+widths=8,4+layer_norm=false"]
    assert (one.optimizer.name, one.optimizer.options.lr) == ("adam", 0.2)
    assert one.addons[0].options.replacement_rate == 1e-5
    assert (one.network.options.widths, one.network.options.layer_norm) == ((8, 4), False)
    assert found.sweeps == dict.fromkeys([label for label in found.learners if label != "b"], "a")


@pytest.mark.parametrize(
    ("learner", "labels"),
    [
        ({"optimizer": "sgd", "addons": [{"name": "shrink-and-perturb", "shrink": [0.5, 1.0]}]},
         ["x+shrink=0.5", "x+shrink=1.0"]),
        ({"optimizer": {"name": "continual-backprop",
                        "base": {"name": "adam", "betas": [[0, 0.9], [0.9, 0.999]]}}},
         ["x+betas=0.0,0.9", "x+betas=0.9,0.999"]),
        ({"optimizer": {"name": "adam", "betas": [0.5, 0.9]}}, ["x"]),
        ({"optimizer": {"name": "sgd", "weight_decay": [0, 0.1]},
          "addons": [{"name": "shrink-and-perturb", "noise": ["normal", "initializer"]}]},
         ["x+weight_decay=0.0+noise=normal", "x+weight_decay=0.0+noise=initializer",
          "x+weight_decay=0.1+noise=normal", "x+weight_decay=0.1+noise=initializer"]),
        ({"optimizer": "adam", "agent": {"name": "ppo", "target_kl": ["none", 0.01]}},
         ["x+target_kl=none", "x+target_kl=0.01"]),
        ({"optimizer": {"name": "torch.optim:RMSprop", "lr": [0.1, 0.2]}},
         ["x+lr=0.1", "x+lr=0.2"]),
        # One name in two parts: each says whose it is.
        ({"optimizer": {"name": "upgd", "beta_utility": [0.5, 0.9]},
          "addons": [{"name": "continual-backprop", "decay_rate": [0.9, 0.8]},
                     {"name": "clrl.agents.optim.continual_backprop:ContinualBackprop",
                      "decay_rate": [0.7]}]},
         [f"x+beta_utility={beta}+continual-backprop.decay_rate={rate}"
          "+ContinualBackprop.decay_rate=0.7" for beta in (0.5, 0.9) for rate in (0.9, 0.8)]),
    ],
)  # fmt: skip
def test_where_lists_may_stand(learner: dict[str, Any], labels: list[str]) -> None:
    assert list(made({"x": learner}).learners) == labels


def test_lists_in_what_learners_share() -> None:
    found = made(
        {
            "a": {"optimizer": {"name": "sgd", "lr": [0.5]}},
            "b": {"optimizer": "sgd", "network": "mlp"},
        },
        network={"name": "mlp", "activation": ["relu", "tanh"]},
    )
    swept = ["a+lr=0.5+activation=relu", "a+lr=0.5+activation=tanh"]
    assert list(found.learners) == [*swept, "b"]
    assert found.sweeps == dict.fromkeys(swept, "a")


def test_what_is_kept_gives_the_same_runs() -> None:
    found = suites.from_mapping(
        {
            "benchmarks": {"digits": "permuted-digits", "line": "slow-regression"},
            "learners": {
                "a": {"optimizer": {"name": "adam", "lr": [0.1, 0.2]}, "benchmarks": ["digits"]},
                "b": {"optimizer": "sgd", "sweep": "by-hand"},
            },
        },
        Place("s.yaml"),
        "s",
    )
    text = record.to_yaml(found.to_dict())
    assert suites.from_mapping(yaml.safe_load(text), Place("kept"), "s") == found
    kept = yaml.safe_load(text)["learners"]
    assert {label: entry["sweep"] for label, entry in kept.items()} == {
        "a+lr=0.1": "a", "a+lr=0.2": "a", "b": "by-hand",
    }  # fmt: skip
    labels = [job.label for job in found.populations(Path("out"))]
    assert labels == ["digits/a+lr=0.1", "digits/a+lr=0.2", "digits/b", "line/b"]


def test_without_lists_nothing_changes() -> None:
    found = made({"a": {"optimizer": {"name": "adam", "lr": 0.1}}})
    assert (list(found.learners), found.sweeps) == (["a"], {})
    assert "sweep" not in found.to_dict()["learners"]["a"]
    assert to_dict(found.learners["a"])["optimizer"]["lr"] == 0.1


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ({"optimizer": {"name": "adam", "lr": [0.1, "fast"]}},
         "learners.x.optimizer.lr: expected a number >= 0, got 'fast'"),
        ({"optimizer": {"name": "adam", "lr": []}},
         "learners.x.optimizer.lr: expected a value, or a list of values, got an empty list"),
        ({"optimizer": {"name": "adam", "lr": [0.1, "1e-1"]}},
         "learners.x.optimizer.lr: '1e-1' is there twice"),
        ({"optimizer": {"name": "adam", "lr": [[0.1]]}},
         "learners.x.optimizer.lr: expected a number >= 0, got [[0.1]]"),
        ({"optimizer": {"name": "adam", "betas": [[0.1, 0.2], 0.3]}},
         "learners.x.optimizer.betas: expected a list of 2, each a number in [0, 1), got 0.3"),
        ({"optimizer": "sgd", "network": {"name": "mlp", "widths": [[8], ["a"]]}},
         "learners.x.network.widths: expected a list, each item a whole number >= 1, got ['a']"),
        ({"optimizer": "sgd", "network": {"name": "mlp", "width": [[8]]}},
         "learners.x.network.width: unknown key; did you mean 'widths'?"),
        ({"optimizer": "sgd", "addons": [{"name": "shrink-and-perturb", "every": [0]}]},
         "learners.x.addons.shrink-and-perturb.every: expected a whole number >= 1, got 0"),
        ({"optimizer": ["sgd", "adam"]}, "learners.x.optimizer: expected a name, or a mapping"),
        ({"optimizer": {"name": ["sgd", "adam"]}}, "learners.x.optimizer.name: expected a name"),
        ({"optimizer": {"name": "adm", "lr": [0.1]}}, "learners.x.optimizer: unknown optimizer"),
        ({"optimizer": "sgd", "sweep": 3}, "learners.x.sweep: expected a label, got 3"),
        ({"optimizer": "sgd", "scratch_of": "y"}, "learners.x.scratch_of: expected a learner's"),
        ({"optimizer": {"name": "adam", "lr": [0.1234567890123456, 0.2], "eps":
          [0.1234567890123456], "weight_decay": [0.1234567890123456]}, "network":
          {"name": "mlp", "leaky_slope": [0.1234567890123456]}},
         "learners.x: the label 'x+lr=0.1234567890123456+eps=0.1234567890123456+weight"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(learner: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        made({"x": learner})
    assert str(caught.value).startswith(f"s.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "depth"),
    [
        (float, 0),
        (Annotated[float, Gt(0)] | None, 0),
        (Literal["a", "b"], 0),
        (tuple[int, ...], 1),
        (Annotated[tuple[float, float], "pair"] | None, 1),
        (tuple[tuple[int, int], ...], 2),
    ],
)
def test_how_deep_lists_go(hint: Any, depth: int) -> None:
    assert nesting(hint) == depth


def test_a_label_that_is_there_already() -> None:
    learners = {
        "a+lr=0.1": {"optimizer": "sgd"},
        "a": {"optimizer": {"name": "sgd", "lr": [0.1]}},
    }
    with pytest.raises(UsageError, match=r"learners\.a: the label 'a\+lr=0\.1' is there twice"):
        made(learners)


def test_how_many_runs_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rates.yaml"
    learners = {
        "adam": {"optimizer": {"name": "adam", "lr": [0.1, 0.2, 0.3], "eps": [1, 2]}},
        "sgd": {"optimizer": {"name": "sgd", "lr": [0.1, 0.2]}},
        "upgd": {"optimizer": "upgd"},
    }
    file.write_text(yaml.safe_dump({**BASE, "learners": learners}))
    monkeypatch.setattr(suites, "carry_out", lambda *_: [])
    assert main(["suite", str(file), "--out", str(tmp_path / "out")]) == 0
    # 6 + 2 + 1 learners, 3 seeds each
    assert capsys.readouterr().err == (
        "rates: 27 runs, 3 seeds of 9 pairs of benchmark and learner "
        "(9 learners, 6 settings in the sweep adam, 2 settings in the sweep sgd)\n"
    )
