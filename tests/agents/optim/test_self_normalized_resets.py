"""Self-normalized resets: ages and thresholds worked by hand, each unit against itself alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.members import Members
from clrl.agents.optim.self_normalized_resets import SelfNormalizedResets
from clrl.agents.optim.units import Units
from clrl.agents.options import MLPOptions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Seen(SelfNormalizedResets):
    """Remembers who started anew: step, layer, units."""

    def __init__(self, members: Members, **options: Any) -> None:
        super().__init__(members, **options)
        self.seen: list[tuple[int, str, list[int]]] = []

    def renew(self, layer: Units, member: int, units: Tensor) -> None:
        self.seen.append((self.steps, layer.name, units.tolist()))
        super().renew(layer, member, units)


def by_hand(*widths: int, **options: Any) -> Seen:
    network = MLP(2, 2, MLPOptions(widths=widths, init="kaiming"), seeded())
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    return Seen(Members.of_module(network, optimizer, seeded(5)), **options)


def observe(rule: Seen, *layers: list[list[float]]) -> None:
    """One step with these activations of layer 1 and so on, [examples][units]."""
    with torch.no_grad():
        rule.after_step({f"layer_{i + 1}": torch.tensor([h]) for i, h in enumerate(layers)})


def thresholds(rule: Seen) -> list[int]:
    return rule.state_dict()["layer_1"]["threshold"][0].tolist()  # type: ignore[no-any-return]


def test_who_fires_stays_and_who_is_dead_goes_when_its_age_is_the_threshold() -> None:
    """One example of a batch is enough; thresholds begin at 6, the last of 1, 2, 3, 4, 6, 8."""
    rule = by_hand(2, longest=7)
    for step in range(15):
        own = [1.0 if step % 2 else 0.0, 0.0]
        observe(rule, [own, [1.0 - own[0], -1.0]])
    assert rule.seen == [(6, "layer_1", [1]), (12, "layer_1", [1])]


def test_thresholds_by_hand() -> None:
    """In 20 steps unit 0 is silent 1, 1, 1, 3 steps, twice: a quarter of its silences reach 2.

    At that share, 2 is its threshold. Unit 1 always fires, and has no silences; unit 2 never does,
    and starts anew at 8 and 16, which says nothing of larger thresholds: there is none.
    """
    rule = by_hand(3, rejection=0.25, every=20, longest=8)
    for fires in [0, 1, 0, 1, 0, 1, 0, 0, 0, 1] * 2:
        assert thresholds(rule) == [8, 8, 8]
        observe(rule, [[float(fires), 1.0, 0.0]])
    assert thresholds(rule) == [2, 8, 8]
    assert rule.seen == [(8, "layer_1", [2]), (16, "layer_1", [2])]
    assert not rule.state_dict()["layer_1"]["histogram"].any()
    observe(rule, [[0.0, 1.0, 0.0]])
    observe(rule, [[0.0, 1.0, 0.0]])
    assert rule.seen[2:] == [(22, "layer_1", [0])]


def test_a_threshold_that_is_reached_too_often_is_doubled() -> None:
    """From 1 to 2, 4, 8 (the largest), for a unit that is silent 5 of 6 steps."""
    rule = by_hand(1, rejection=0.2, every=12, longest=8)
    rule.state_dict()["layer_1"]["threshold"].fill_(1)
    found = []
    for step in range(48):
        observe(rule, [[float(step % 6 == 5)]])
        if step % 12 == 11:
            found.append(thresholds(rule)[0])
    assert found == [2, 4, 8, 6]  # at 8 nobody starts anew; silences of 5 are less than 6


def test_no_share_is_never() -> None:
    rule = by_hand(2, rejection=0.0, longest=1)
    for _ in range(5):
        observe(rule, [[0.0, 0.0]])
    assert not rule.seen


@pytest.mark.parametrize("factor", [[10.0, 10.0, 10.0], [1.0, 10.0, 1.0]])
def test_scales_of_layers_and_units_do_not_matter(factor: list[float]) -> None:
    found = []
    for scale in (torch.ones(3), torch.tensor(factor)):
        rule = by_hand(3, rejection=0.1, every=10, longest=4)
        h = torch.randn(40, 1, 3, generator=seeded(8)) - torch.tensor([0.0, 0.5, 1.0])
        for own in h.relu() * scale:
            observe(rule, own.tolist())
        found.append((rule.seen, thresholds(rule)))
    assert found[0] == found[1]
    assert found[0][0]


def test_what_joins_two_units_that_start_anew_is_a_new_weight() -> None:
    rule = by_hand(2, 2, longest=1)
    observe(rule, [[0.0, 1.0]], [[1.0, 0.0]])
    weight = rule.members.parameters["linears.1.weight"][0]
    assert rule.seen == [(1, "layer_1", [0]), (1, "layer_2", [1])]
    assert weight[1, 0] != 0 and weight[0, 0] == 0


def test_above_says_what_firing_is() -> None:
    rule = by_hand(2, longest=2, above=0.5)
    for _ in range(2):
        observe(rule, [[0.4, 0.6]])
    assert rule.seen == [(2, "layer_1", [0])]
