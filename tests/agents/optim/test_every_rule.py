"""What every update rule promises, one table for all of them."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from clrl.agents.optim.adaupgd import AdaUPGD
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.dash import DASH
from clrl.agents.optim.fire import FIRE
from clrl.agents.optim.hare_tortoise import HareAndTortoise
from clrl.agents.optim.kron import Kron
from clrl.agents.optim.muon import Muon
from clrl.agents.optim.normalize_project import NormalizeAndProject
from clrl.agents.optim.obgd import ObGD
from clrl.agents.optim.optimizer_reset import AdamRel, OptimizerReset
from clrl.agents.optim.partial_resets import CalibratedPartialResets
from clrl.agents.optim.plasticity_injection import PlasticityInjection
from clrl.agents.optim.redo import ReDo
from clrl.agents.optim.regrama import ReGraMa
from clrl.agents.optim.resets import FullReset, HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.self_normalized_resets import SelfNormalizedResets
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.soap import SOAP
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.optim.trac import TRAC
from clrl.agents.optim.units import UnitReset
from clrl.agents.optim.upgd import UPGD
from clrl.agents.optim.weight_clipping import WeightClipping
from clrl.testing import check_addon, check_optimizer, check_unit_reset
from clrl.testing.learners import Plain, Problem


def sgd(*addons: tuple[Any, dict[str, Any]], **options: Any) -> UpdateRule:
    return UpdateRule(torch.optim.SGD, {"lr": 0.05, **options}, addons)


def adam(*addons: tuple[Any, dict[str, Any]], **options: Any) -> UpdateRule:
    return UpdateRule(torch.optim.Adam, {"lr": 0.01, **options}, addons)


def upgd(**options: Any) -> UpdateRule:
    settings = {"lr": 0.1, "sigma": 0.01, "beta_utility": 0.9, "weight_decay": 1e-3}
    return UpdateRule(UPGD, {**settings, **options})


def upgd_with(*addons: tuple[Any, dict[str, Any]]) -> UpdateRule:
    return UpdateRule(upgd().base, upgd().options, addons)


def adaupgd(**options: Any) -> UpdateRule:
    settings = {"lr": 0.01, "sigma": 0.01, "beta_utility": 0.9, "utility_max": "corrected"}
    return UpdateRule(AdaUPGD, {**settings, **options})


def sp(**options: Any) -> tuple[Any, dict[str, Any]]:
    return ShrinkAndPerturb, options


def cbp(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Many replacements for its 7 + 5 units: one in five steps or so."""
    return ContinualBackprop, {"replacement_rate": 0.02, "maturity_threshold": 2, **options}


def redo(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Every sixth step, what is below the mean of its layer, or nearly."""
    return ReDo, {"threshold": 0.8, "every": 6, **options}


def surgery(addon: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Once, early."""
    return addon, {"every": 5, "times": 1, **options}


SNR = (SelfNormalizedResets, {"rejection": 0.05, "every": 20, "longest": 3, "above": 0.9})
GRAMA = (ReGraMa, {"threshold": 0.5, "every": 6, "updates": 2})
CPR = (CalibratedPartialResets, {"rate": 0.2, "every": 5})
INJECTION = (PlasticityInjection, {"after": 5})
TRAC_ADDON = (TRAC, {"start": 0.02})  # from which steps are long enough to be seen

RULES = {
    "sgd": sgd(),
    "sgd, L2": sgd(weight_decay=0.01),
    "sgd, momentum": sgd(lr=0.01, momentum=0.9),
    "adam": adam(),
    "adam, L2": adam(weight_decay=0.01, betas=(0.99, 0.99)),
    "adamw": UpdateRule(torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop": UpdateRule(torch.optim.RMSprop, {"lr": 0.005}),
    "upgd": upgd(),
    "upgd, noise gated": upgd(gate="noise", lr=0.05),
    "upgd, no gate": upgd(gate="none", lr=0.05),
    "upgd, raw": upgd(utility_max="raw"),
    "upgd, factor 2": upgd(lr=0.05, lr_factor=2.0),
    "upgd, no noise": upgd(sigma=0.0),
    "adaupgd": adaupgd(),
    "adaupgd, noise gated": adaupgd(gate="noise", lr_factor=1.0),
    "adaupgd, no gate": adaupgd(gate="none", lr_factor=1.0),
    "adaupgd, raw": adaupgd(utility_max="raw"),
    "adaupgd, no noise": adaupgd(sigma=0.0, betas=(0.99, 0.99)),
    "muon": UpdateRule(Muon, {"lr": 0.02, "others": 0.5}),
    "obgd": UpdateRule(ObGD, {"trace": 0.8}),
    "obgd, no trace, s&p": UpdateRule(ObGD, {"lr": 0.1, "trace": 0.0}, [sp(noise_scale=1e-3)]),
    "obgd cbp": UpdateRule(ObGD, {"lr": 0.05}, [cbp()]),
    # With draws, after which one learner of the engine is not compared with the plain module: of
    # gradients without full rank some eigenvectors are any, and what rounds otherwise has others.
    "soap, s&p": UpdateRule(SOAP, {"lr": 0.01}, [sp(noise_scale=1e-3)]),
    "soap, cbp": UpdateRule(SOAP, {"lr": 0.01, "every": 3}, [cbp()]),
    "kron": UpdateRule(Kron, {"lr": 0.01}),
    "kron, decay": UpdateRule(Kron, {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.1}),
    "muon, decay, s&p": UpdateRule(Muon, {"weight_decay": 0.1}, [sp(noise_scale=1e-3)]),
    "s&p, dohare": sgd(sp(noise_scale=1e-3), weight_decay=0.01),
    "s&p, elsayed": sgd(sp(noise_scale=0.01, scale_by_lr=True), weight_decay=0.01),
    "s&p, ash": sgd(sp(noise_scale=0.01, shrink=0.95, every=10)),
    "s&p, soft": sgd(sp(noise_scale=1e-3, noise="initializer", shrink=0.999)),
    "s&p, heads": sgd(sp(noise_scale=1e-3, part="heads")),
    "s&p, at changes": sgd(sp(noise_scale=0.5, shrink=0.5, when="change", part="heads")),
    "weight clipping": adam((WeightClipping, {"bound": 1.2})),
    "weight clipping, heads free": sgd((WeightClipping, {"bound": 1.2, "heads": False})),
    "nap": adam((NormalizeAndProject, {"norm_decay": 0.1})),
    "nap, weights": sgd((NormalizeAndProject, {"biases": False, "every": 3})),
    "hare and tortoise": adam((HareAndTortoise, {"decay": 0.9, "every": 5})),
    "adam s&p": adam(sp(noise_scale=1e-3)),
    "cbp": sgd(cbp()),
    "cbp, contribution, sum": sgd(cbp(utility="contribution", outgoing="sum")),
    "cbp, probabilistic": sgd(cbp(replacement="probabilistic")),
    "cbp, no transfer": sgd(cbp(transfer_bias=False)),
    "adam cbp": adam(cbp()),
    "adamw cbp": UpdateRule(torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}, [cbp()]),
    "adam cbp, L2": adam(cbp(), weight_decay=0.01),
    "adam cbp, no reset": adam(cbp(reset_optimizer=False)),
    "redo": sgd(redo(threshold=0.3)),
    "adam redo": adam(redo(threshold=0.3)),
    "adam redo, fresh": adam(redo(threshold=0.3, outgoing="fresh", score="mean-of-ratios")),
    "redo, kept": sgd(redo(outgoing="keep", reset_optimizer=False, examples=40)),
    "snr": sgd(SNR),
    "adam snr": adam(SNR),
    "regrama": sgd(GRAMA),
    "adam regrama, zero": adam((ReGraMa, {**GRAMA[1], "outgoing": "zero", "fraction": 0.3})),
    "cpr": sgd(CPR),
    "adam cpr": adam(CPR),
    "head reset": adam(surgery(HeadReset)),
    "head reset, two layers": sgd(surgery(HeadReset, layers=2, times=3)),
    "full reset": adam(surgery(FullReset)),
    "upgd full reset": UpdateRule(upgd().base, upgd().options, [surgery(FullReset)]),
    "injection": sgd(INJECTION, lr=0.02, momentum=0.9, weight_decay=0.01),
    "adam injection": adam(INJECTION),
    "injection, one layer": upgd_with((PlasticityInjection, {"after": 5, "layers": 1})),
    "dash": sgd(surgery(DASH, times=3), lr=0.01, momentum=0.9),
    "adam fire": adam(surgery(FIRE)),
    "fire": sgd(surgery(FIRE)),
    "adam optimizer reset": adam(surgery(OptimizerReset)),
    "optimizer reset": sgd(surgery(OptimizerReset, times=3), lr=0.01, momentum=0.9),
    "adam-rel": adam(surgery(AdamRel, times=0)),
    "adamw-rel": UpdateRule(torch.optim.AdamW, {"lr": 0.01}, [surgery(AdamRel)]),
    "trac": adam(TRAC_ADDON),
    "trac, sgd": sgd(TRAC_ADDON, cbp()),
    "upgd cbp s&p": UpdateRule(upgd().base, upgd().options, [cbp(), sp(noise_scale=1e-3)]),
    "adaupgd cbp": UpdateRule(adaupgd().base, adaupgd().options, [cbp()]),
}
elsewhere = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pytorch_optimizer", "opt_einsum"))),
    reason="pytorch_optimizer or opt_einsum is not installed",
)
every_rule = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[elsewhere] if rule.base in (SOAP, Kron) else [])
        for name, rule in RULES.items()
    ],
)


def test_the_table_covers_every_built_in_rule() -> None:
    tested = {rule.base for rule in RULES.values()}
    tested |= {addon for rule in RULES.values() for addon, _ in rule.addons}
    for entry in (*OPTIMIZERS, *ADDONS):
        assert entry.source != "built in" or entry.load() in tested


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[elsewhere, pytest.mark.slow] if rule.base in (SOAP, Kron) else [])
        for name, rule in RULES.items()
    ],
)
def test_keeps_the_contract(name: str) -> None:
    rule = RULES[name]
    held = check_optimizer(
        rule.base,
        addons=rule.addons,
        steps=12,
        learns=0.35,
        draws="no noise" not in name,
        **rule.options,
    )
    apart = rule.base in (Muon, SOAP, Kron)
    assert ("a member at a time" if apart else "stacked") in held
    assert "members independent" in held


@pytest.mark.slow
@every_rule
def test_keeps_the_contract_in_every_division(name: str) -> None:
    rule = RULES[name]
    noisy = "no noise" not in name
    check_optimizer(
        rule.base, addons=rule.addons, steps=12, draws=noisy, thorough=True, **rule.options
    )


@pytest.mark.parametrize(
    ("addon", "neutral"),
    [
        (sp(noise_scale=1e-3, shrink=0.9), {"noise_scale": 0.0, "shrink": 1.0}),
        (sp(noise_scale=1e-3, part="heads"), {"noise_scale": 0.0}),
        (cbp(), {"replacement_rate": 0.0}),
        (redo(), {"threshold": -1.0}),
        (SNR, {"rejection": 0.0}),
        (GRAMA, {"threshold": -1.0}),
        (GRAMA, {"fraction": 0.0}),
        (CPR, {"rate": 0.0}),
        (INJECTION, {"after": 10**9}),
        (surgery(DASH), {"shrink": 1.0}),
        (surgery(HeadReset), {"every": 0}),
        (surgery(FullReset), {"every": 0}),
        (surgery(FIRE), {"every": 0}),
        (surgery(OptimizerReset), {"every": 0}),
        (surgery(AdamRel), {"every": 0}),
        ((WeightClipping, {"bound": 0.5}), {"bound": float("inf")}),
        ((NormalizeAndProject, {}), {"every": 10**9}),
        ((HareAndTortoise, {"decay": 0.9, "every": 4}), {"decay": 0.0}),
    ],
)
def test_an_addon_that_does_nothing_is_not_there(
    addon: tuple[Any, dict[str, Any]], neutral: dict[str, Any]
) -> None:
    held = check_addon(
        addon[0],
        base="adam",
        base_options={"lr": 0.01},
        neutral=neutral,
        steps=12,
        **addon[1],
    )
    assert "its neutral setting is the base" in held


RESETS: dict[str, dict[str, Any]] = {
    "continual-backprop": {"replacement_rate": 0.02, "maturity_threshold": 2},
    "redo": {"threshold": 0.8, "every": 6},
    "self-normalized-resets": {"longest": 6, "above": 1.5},
    "regrama": {"threshold": 0.5, "every": 6, "updates": 2},
}


def test_the_table_of_resets_covers_every_built_in_one() -> None:
    built_in = [entry for entry in ADDONS if entry.source == "built in"]
    assert {one.name for one in built_in if issubclass(one.load(), UnitReset)} == RESETS.keys()


@pytest.mark.parametrize("name", RESETS)
def test_what_resets_units_keeps_the_contract(name: str) -> None:
    held = check_unit_reset(name, steps=30, **RESETS[name])
    assert "what is new moves as under a new optimizer, and nothing else does" in held


def test_without_gate_and_noise_upgd_is_sgd() -> None:
    plain = {"sigma": 0.0, "gate": "none", "weight_decay": 0.0, "lr_factor": 1.0}
    held = check_optimizer(UPGD, neutral=(plain, "sgd", {"lr": 0.1}), steps=12, lr=0.1, sigma=0.01)
    assert "its neutral setting is the base" in held


def problem(name: str) -> Problem:
    return Problem(RULES[name], steps=30)


DRAWS_ALIKE = ["s&p, soft", *(name for name in RULES if "cbp" in name and "s&p" not in name)]
for _name in ("cbp, probabilistic", "adaupgd cbp", "soap, cbp"):
    DRAWS_ALIKE.remove(_name)


@pytest.mark.parametrize("name", DRAWS_ALIKE)
def test_what_draws_parameter_by_parameter_is_the_plain_module_too(name: str) -> None:
    own, members = Plain(problem(name), 0), problem(name).population([0])
    x, y = problem(name).examples([0], 30)
    losses = own.learn(x[0], y[0])
    torch.testing.assert_close(members.learn(x, y)["loss"][0], losses, rtol=1e-4, atol=1e-6)
    for key, value in own.parameters().items():
        torch.testing.assert_close(members.parameters()[key][0], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adam cbp", "s&p, elsayed"])
def test_learning_rate_schedules_reach_the_base_below_addons(name: str) -> None:
    """Without a step size nothing moves but what an add-on moves."""
    plain = Plain(problem(name), 0, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(plain.optimizer, lambda step: float(step == 0))
    x, y = problem(name).examples([0], 2)
    plain.learn(x[0, :1], y[0, :1])
    schedule.step()
    before = plain.parameters()
    plain.learn(x[0, 1:], y[0, 1:])
    for key, value in plain.parameters().items():
        assert torch.equal(before[key], value)
