"""The short form of ``make bits``: each setting in a process of its own."""

from __future__ import annotations

import bits
import pytest


@pytest.mark.parametrize("setting", bits.SETTINGS[:2], ids=bits.shown)
def test_a_seed_is_the_same_alone_among_others_divided_otherwise_and_resumed(
    setting: dict[str, str],
) -> None:
    cases, _ = bits.examine(setting, short=True)
    assert [case["case"] for case in cases] == [case.name for case in bits.CASES if case.short]
    for case in cases:
        assert case["runs"] == 18
        assert not case["differ"], "\n".join(case["differ"])


def test_what_differs_is_found() -> None:
    raw = bits.CASES[0].raw
    other = {**raw, "network": {"name": "mlp", "widths": [64, 33]}}
    whole = bits.record(raw, (0,), None)
    assert bits.differences(whole, bits.record(raw, (0,), 1)) == {}
    assert " at step " in bits.differences(whole, bits.record(other, (0,), None))[0]
