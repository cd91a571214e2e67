"""Configuration: what a user may write, and what is said about what they may not."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Le

from clrl.agents.optim.options import (
    AdamOptions,
    ContinualBackpropOptions,
    SGDOptions,
    UPGDOptions,
)
from clrl.agents.options import MLPOptions
from clrl.errors import UsageError
from clrl.registry import options_from_signature
from clrl.settings.config import (
    Choice,
    RunConfig,
    config_hash,
    differences,
    resolve,
    to_dict,
)
from clrl.settings.values import Place, build, check, describe, parse_seeds

FILE = Place("suite.yaml", ("learners", "adam"))


def refusal(function: Any, *arguments: Any) -> str:
    """The message of the UsageError that a call ends in; it is one line."""
    with pytest.raises(UsageError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_said_gives_the_defaults() -> None:
    config = resolve({}, FILE)
    assert config.benchmark.name == "permuted-digits"
    assert config.agent.name == "supervised"
    assert config.network == Choice("mlp", MLPOptions())
    assert config.optimizer == Choice("sgd", SGDOptions())
    assert config.addons == ()
    assert (config.steps, config.log_every, config.chunk_size) == (100_000, 1_000, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("adam", Choice("adam", AdamOptions())),
        ({"name": "adam", "lr": "1e-3"}, Choice("adam", AdamOptions(lr=0.001))),
        ({"name": "adam", "lr": 1}, Choice("adam", AdamOptions(lr=1.0))),
        ({"name": "adam", "betas": [0, "0.5"]}, Choice("adam", AdamOptions(betas=(0.0, 0.5)))),
        ({"name": "upgd", "gate": "none"}, Choice("upgd", UPGDOptions(gate="none"))),
    ],
)
def test_optimizers_in_every_form(written: Any, expected: Choice) -> None:
    found = resolve({"optimizer": written}, FILE).optimizer
    assert found == expected
    assert all(
        type(value) is float for value in (found.options.lr, *getattr(found.options, "betas", ()))
    )


def test_numbers_as_text() -> None:
    config = resolve(
        {"steps": "1e6", "log_every": 2e3, "network": {"name": "mlp", "widths": ["1e2", 5]}}, FILE
    )
    assert (config.steps, config.log_every) == (1_000_000, 2_000)
    assert type(config.log_every) is int
    assert config.network.options.widths == (100, 5)


@pytest.mark.parametrize(
    ("raw", "key", "expectation"),
    [
        ({"optimizer": {"name": "adam", "lr": "fast"}}, "optimizer.lr", "a number >= 0, got 'fa"),
        ({"optimizer": {"name": "adam", "lr": -1}}, "optimizer.lr", "a number >= 0, got -1"),
        ({"optimizer": {"name": "adam", "lr": True}}, "optimizer.lr", "a number >= 0, got true"),
        ({"optimizer": {"name": "adam", "lr": "nan"}}, "optimizer.lr", "a number >= 0, got 'nan'"),
        ({"optimizer": {"name": "adam", "lr": float("inf")}}, "optimizer.lr", "got inf"),
        ({"optimizer": {"name": "adam", "lr": None}}, "optimizer.lr", "got nothing"),
        ({"optimizer": {"name": "adam", "lr": [1]}}, "optimizer.lr", "got [1]"),
        ({"optimizer": {"name": "adam", "lrr": 1}}, "optimizer.lrr", "did you mean 'lr'?"),
        ({"optimizer": {"name": "adam", "betas": [0.9]}}, "optimizer.betas", "a list of 2, each"),
        ({"optimizer": {"name": "adam", "betas": [0.9, 1]}}, "optimizer.betas", "in [0, 1)"),
        ({"optimizer": {"name": "adam", "betas": 0.9}}, "optimizer.betas", "got 0.9"),
        ({"optimizer": {"name": "upgd", "gate": False}}, "optimizer.gate", "one of update, noise"),
        ({"addons": [{"every": 1}]}, "addons.name", "expected a name, got nothing"),
        ({"optimizer": {"name": 3}}, "optimizer.name", "expected a name, got 3"),
        ({"optimizer": 3}, "optimizer", "expected a name, or a mapping with 'name', got 3"),
        ({"optimizer": {"name": "adam", 3: 4}}, "optimizer", "expected text as a key, got 3"),
        ({"optimizer": "adma"}, "optimizer", "unknown optimizer 'adma'; did you mean 'adam'?"),
        ({"optimizer": "continual-backprp"}, "optimizer", "did you mean 'continual-backprop'?"),
        ({"benchmark": "permuted-mist"}, "benchmark", "did you mean 'permuted-mnist'?"),
        ({"network": {"name": "mlp", "layer_norm": 1}}, "network.layer_norm", "true or false"),
        ({"network": {"name": "mlp", "widths": [2.5]}}, "network.widths", "a whole number >= 1"),
        ({"network": {"name": "mlp", "widths": [True]}}, "network.widths", "got [true]"),
        ({"network": {"name": "mlp", "widths": 5}}, "network.widths", "expected a list, each"),
        ({"steps": 0}, "steps", "expected a whole number >= 1, got 0"),
        ({"steps": True}, "steps", "expected a whole number >= 1, got true"),
        ({"steps": 1.5}, "steps", "got 1.5"),
        ({"steps": "1e400"}, "steps", "got '1e400'"),
        ({"setps": 1}, "setps", "unknown key; did you mean 'steps'?"),
        ({"addons": "continual-backprop"}, "addons", "expected a list of add-ons"),
        ({"addons": ["adam"]}, "addons.adam", "unknown add-on 'adam'; "),
        (
            {"addons": [{"name": "continual-backprop", "replacement_rate": 2}]},
            "addons.continual-backprop.replacement_rate",
            "expected a number in [0, 1], got 2",
        ),
        ({"addons": ["continual-backprop"] * 2}, "addons", "'continual-backprop' is there twice"),
        ({"optimizer": "no.such:Rule"}, "optimizer", "cannot import 'no.such'"),
        ({"optimizer": "torch.optim:Nope"}, "optimizer", "has no 'Nope'"),
    ],
)
def test_mistakes_name_file_key_and_expectation(raw: Any, key: str, expectation: str) -> None:
    message = refusal(resolve, raw, FILE)
    assert message.startswith(f"suite.yaml: learners.adam.{key}: ")
    assert expectation in message


def test_the_line_of_the_documentation() -> None:
    message = refusal(resolve, {"optimizer": {"name": "adam", "lr": "fast"}}, FILE)
    assert message == ("suite.yaml: learners.adam.optimizer.lr: expected a number >= 0, got 'fast'")


def test_places_on_the_command_line_have_hyphens() -> None:
    message = refusal(resolve, {"log_every": "x"}, Place())
    assert message == "--log-every: expected a whole number >= 1, got 'x'"


class TestAddonInPlaceOfAnOptimizer:
    def test_options_go_where_they_belong(self) -> None:
        config = resolve(
            {"optimizer": {"name": "continual-backprop", "replacement_rate": "1e-4", "lr": 0.003}},
            FILE,
        )
        assert config.optimizer == Choice("sgd", SGDOptions(lr=0.003))
        assert config.addons == (
            Choice("continual-backprop", ContinualBackpropOptions(replacement_rate=1e-4)),
        )

    def test_another_base(self) -> None:
        config = resolve(
            {"optimizer": {"name": "continual-backprop", "base": "adam", "eps": 1}}, FILE
        )
        assert config.optimizer == Choice("adam", AdamOptions(eps=1.0))

    def test_base_with_its_own_options(self) -> None:
        written = {"name": "shrink-and-perturb", "base": {"name": "adam", "lr": 0.5}}
        config = resolve({"optimizer": written}, FILE)
        assert config.optimizer == Choice("adam", AdamOptions(lr=0.5))

    def test_same_as_written_apart(self) -> None:
        together = {"optimizer": {"name": "shrink-and-perturb", "lr": 0.5, "noise_scale": 0.1}}
        apart = {
            "optimizer": {"name": "sgd", "lr": 0.5},
            "addons": [{"name": "shrink-and-perturb", "noise_scale": 0.1}],
        }
        assert resolve(together, FILE) == resolve(apart, FILE)

    def test_listed_addons_follow(self) -> None:
        config = resolve(
            {"optimizer": "continual-backprop", "addons": ["shrink-and-perturb"]}, FILE
        )
        names = [addon.name for addon in config.addons]
        assert names == ["continual-backprop", "shrink-and-perturb"]

    @pytest.mark.parametrize(
        ("written", "words"),
        [
            ({"replacement_rat": 1}, "did you mean 'replacement_rate'?"),
            ({"moment": 1}, "did you mean 'momentum'?"),
            ({"lr": -1}, "optimizer.lr: expected a number >= 0"),
            ({"base": "shrink-and-perturb"}, "expected an optimizer, got the add-on"),
            ({"base": "sdg"}, "optimizer.base: unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ],
    )
    def test_mistakes(self, written: dict[str, Any], words: str) -> None:
        raw = {"optimizer": {"name": "continual-backprop", **written}}
        assert words in refusal(resolve, raw, FILE)


class _Untyped:
    """A plug-in without annotations, as many are."""

    def __init__(self, params, lr=1, betas=(0.9, 0.999), warmup=None, kernel=object()):  # type: ignore[no-untyped-def]  # noqa: B008
        pass


class TestUntypedPlugIn:
    SPEC = options_from_signature(_Untyped)

    def test_a_default_tells_the_type(self) -> None:
        made = build(self.SPEC, {"lr": "0.5", "betas": ["0", 0.5]}, FILE)
        assert (made.lr, made.betas, made.warmup) == (0.5, (0.0, 0.5), None)
        assert build(self.SPEC, {"warmup": None}, FILE).warmup is None

    def test_none_tells_none_and_who_sets_it_is_told(self) -> None:
        message = refusal(build, self.SPEC, {"warmup": "3"}, FILE)
        assert message.startswith("suite.yaml: learners.adam.warmup: its type is not to be told; ")
        assert message.endswith("such as warmup: float | None = None")

    def test_what_is_no_plain_value_stays_out(self) -> None:
        assert "there is nothing" not in refusal(build, self.SPEC, {"kernel": 1}, FILE)


class TestPlugIn:
    def test_options_come_from_the_signature(self) -> None:
        config = resolve(
            {"optimizer": {"name": "torch.optim:RMSprop", "lr": "1e-2", "centered": True}}, FILE
        )
        assert config.optimizer.short_name == "RMSprop"
        assert config.optimizer.options.lr == 0.01
        assert config.optimizer.options.centered is True

    def test_mistakes(self) -> None:
        raw = {"optimizer": {"name": "torch.optim:RMSprop", "lr": "fast"}}
        assert refusal(resolve, raw, FILE) == (
            "suite.yaml: learners.adam.optimizer.lr: expected a number, got 'fast'"
        )
        raw = {"optimizer": {"name": "torch.optim:RMSprop", "alpa": 0.5}}
        assert "did you mean 'alpha'?" in refusal(resolve, raw, FILE)


def full_config() -> RunConfig:
    return resolve(
        {
            "benchmark": {"name": "slow-regression", "change": "redraw"},
            "network": {"name": "mlp", "widths": []},
            "optimizer": {"name": "continual-backprop", "base": "adam", "betas": [0.0, 0.5]},
            "addons": ["shrink-and-perturb"],
            "steps": 10,
            "chunk_size": 2,
        },
        FILE,
    )


def test_plain_form_survives_yaml_and_json() -> None:
    config = full_config()
    plain = to_dict(config)
    assert resolve(yaml.safe_load(yaml.safe_dump(plain)), FILE) == config
    assert resolve(json.loads(json.dumps(plain)), FILE) == config


class TestHash:
    def test_is_stable_and_of_the_right_form(self) -> None:
        assert config_hash(full_config()) == config_hash(full_config())
        assert len(config_hash(full_config())) == 64

    def test_does_not_depend_on_how_it_was_written(self) -> None:
        explicit = {"optimizer": {"name": "sgd", "lr": "1e-2"}, "steps": "1e5"}
        assert config_hash(resolve(explicit, FILE)) == config_hash(resolve({}, FILE))

    def test_depends_on_every_setting_but_the_chunk_size(self) -> None:
        config = full_config()
        for name in ("steps", "log_every"):
            changed = dataclasses.replace(config, **{name: 7})
            assert config_hash(changed) != config_hash(config)
        assert config_hash(dataclasses.replace(config, chunk_size=None)) == config_hash(config)
        assert config_hash(dataclasses.replace(config, addons=())) != config_hash(config)


def test_differences_are_told_by_key() -> None:
    old = resolve({"optimizer": {"name": "adam", "lr": 0.01}, "chunk_size": 1}, FILE)
    new = resolve({"optimizer": {"name": "adam", "lr": 0.1}, "steps": 7}, FILE)
    assert differences(to_dict(old), to_dict(new)) == [
        "optimizer.lr 0.01 -> 0.1",
        "steps 100000 -> 7",
    ]
    assert differences(to_dict(old), to_dict(old)) == []
    with_addon = resolve({"addons": ["shrink-and-perturb"]}, FILE)
    assert "addons.shrink-and-perturb.name nothing -> 'shrink-and-perturb'" in differences(
        to_dict(resolve({}, FILE)), to_dict(with_addon)
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1", (1,)),
        ([3], (3,)),
        (0, (0,)),
        ("0-3", (0, 1, 2, 3)),
        ("4-4", (4,)),
        ("0,2,5-7", (0, 2, 5, 6, 7)),
        (" 1 , 3 ", (1, 3)),
        ([4, "0-1"], (4, 0, 1)),
    ],
)
def test_seeds(written: Any, expected: tuple[int, ...]) -> None:
    assert parse_seeds(written, Place().at("seeds")) == expected


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "expected seeds such as"),
        ([], "got []"),
        (None, "got nothing"),
        (True, "got true"),
        (1.0, "got 1.0"),
        ("-1", "expected seeds such as"),
        (-1, "expected seeds such as"),
        ("3-", "expected seeds such as"),
        ("1,,2", "expected seeds such as"),
        ("a-b", "expected seeds such as"),
        ("1-2-3", "expected seeds such as"),
        ("5-2", "runs backwards"),
        ("0-3,2", "seed 2 is there twice"),
        ([1, 1], "seed 1 is there twice"),
        ("0-99999999999", "more than 10,000 seeds"),
    ],
)
def test_seeds_that_cannot_be(written: Any, words: str) -> None:
    message = refusal(parse_seeds, written, Place().at("seeds"))
    assert message.startswith("--seeds: ")
    assert words in message


@pytest.mark.parametrize("written", [5, "5", "2"])
def test_a_number_that_may_be_a_seed_or_how_many(written: Any) -> None:
    message = refusal(parse_seeds, written, Place("a.yaml").at("seeds"))
    assert message.startswith(f"a.yaml: seeds: {written} may be one seed or {written} seeds; ")
    one, many = message.partition("write ")[2].split(" for ")[0], f"0-{int(written) - 1}"
    assert parse_seeds(yaml.safe_load(one), FILE) == (int(written),)
    assert f"or {many} for as many" in message
    on_the_command_line = refusal(parse_seeds, written, Place().at("seeds"))
    assert f"write {written}-{written} for the one" in on_the_command_line


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (float, "a number"),
        (Annotated[float, Gt(0)], "a number > 0"),
        (Annotated[float, Gt(0), Le(2)], "a number in (0, 2]"),
        (Annotated[int, Le(5)], "a whole number <= 5"),
        (int | None, "a whole number or none"),
        (Literal["a", 2], "one of a, 2"),
        (tuple[int, str], "a list of 2, a whole number, text"),
        (tuple[Annotated[int, Ge(1)], ...], "a list, each item a whole number >= 1"),
    ],
)
def test_types_in_words(hint: Any, words: str) -> None:
    assert describe(hint) == words


@pytest.mark.parametrize(
    ("hint", "raw", "value"),
    [
        (int | None, "none", None),
        (int | None, "3", 3),
        (float | int, "0.5", 0.5),
        (str, "1e-3", "1e-3"),
        (str | None, "none", "none"),
        (bool, "true", True),
        (bool, "false", False),
    ],
)
def test_text_is_read_as_declared(hint: Any, raw: Any, value: Any) -> None:
    found = check(hint, raw, FILE)
    assert found == value
    assert type(found) is type(value)


def test_a_required_option_and_a_check_of_several() -> None:
    @dataclasses.dataclass(frozen=True)
    class Options:
        low: float
        high: float = 1.0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low must not\nexceed high")

    # The hints of a class in a function cannot be looked up by name.
    Options.__annotations__.update(low=float, high=float)
    assert build(Options, {"low": 0}, FILE) == Options(0.0)
    place = "suite.yaml: learners.adam"
    assert refusal(build, Options, {}, FILE) == f"{place}.low: expected a number, got nothing"
    assert refusal(build, Options, {"low": 2}, FILE) == f"{place}: low must not exceed high"
