"""What metrics promise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clrl.metrics.measuring import Metric, defined
from clrl.metrics.plasticity import singular_values
from clrl.metrics.table import METRICS
from clrl.testing.learners import seeded
from clrl.testing.promises import Broken, Check, Subject, difference, load

MEMBERS = 5


def check_metric(metric: Subject, *, undefined: bool = False, **settings: Any) -> tuple[str, ...]:
    """Hold a metric against what every metric promises.

    It asks for what is measured; leaves its inputs as they are and draws nothing; gives one real
    number a member, which is finite, also where every input is 0; and gives a member alone, in
    whatever layout, what it gives among others, to the bit.

    Args:
        metric: the function, or a name.
        undefined: whether it may be nan where every input is 0.
        settings: what it is to be measured with besides its inputs.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    function, name = load(metric, METRICS)
    check = Check(name)
    with check.promise("asks for what is measured"):
        known = defined(name, function)

    def value(inputs: dict[str, Any]) -> Any:
        return known.function(**inputs, **settings)

    check.own_randomness(lambda: value(_inputs(known, "plain")))
    with check.promise("a number a member"):
        _expect_numbers(value(_inputs(known, "plain")), finite=True)
        _expect_numbers(value(_inputs(known, "plain", scale=0.0)), finite=not undefined)
    with check.promise("what is not finite gives its member nan alone"):
        together = value(_inputs(known, "plain"))
        spoilt = value(_inputs(known, "plain", spoilt=2))
        if not bool(spoilt[2].isnan()):
            raise Broken(f"expected nan, got {float(spoilt[2])!r}")
        others = torch.arange(MEMBERS) != 2
        if difference(together[others], spoilt[others]):
            raise Broken("it changes the other members' numbers")
    with check.promise("inputs unchanged"):
        inputs, kept = _inputs(known, "plain"), _inputs(known, "plain")
        first = value(inputs)
        if where := difference(kept, inputs):
            raise Broken(f"it changes {where}")
        if difference(first, value(inputs)):
            raise Broken("a second look gives another result")
    with check.promise("members independent"):
        for layout in ("plain", "views", "transposed"):
            inputs = _inputs(known, layout)
            together = value(inputs)
            for member in range(MEMBERS):
                alone = value(_of(inputs, slice(member, member + 1)))
                if difference(together[member : member + 1], alone):
                    raise Broken(
                        f"member {member} alone ({layout}): {float(alone[0])!r}, "
                        f"among others {float(together[member])!r}"
                    )
    return tuple(check.held)


def _expect_numbers(found: Any, finite: bool) -> None:
    if not isinstance(found, Tensor) or found.shape != (MEMBERS,):
        what = [*found.shape] if isinstance(found, Tensor) else type(found).__name__
        raise Broken(f"expected a tensor [{MEMBERS}], got {what}")
    if not found.is_floating_point():
        raise Broken(f"expected floating-point numbers, got {found.dtype}")
    if bool(found.isinf().any()) or (finite and bool(found.isnan().any())):
        raise Broken(f"member {int(torch.nonzero(~found.isfinite())[0])} is not finite")


def _inputs(
    metric: Metric, layout: str, scale: float = 1.0, spoilt: int | None = None
) -> dict[str, Any]:
    """What a metric is measured on, of five members, some of the numbers 0; one may have a nan."""
    source = seeded(4)

    def numbers(*shape: int) -> Tensor:
        drawn = torch.randn(MEMBERS, *shape, generator=source) * scale
        drawn[drawn.abs() < 0.1] = 0
        if spoilt is not None:
            drawn[spoilt].view(-1)[-1] = torch.nan
        if layout == "transposed" and len(shape) == 2:
            return drawn.mT.contiguous().mT
        if layout == "views":
            wide = torch.zeros(MEMBERS, drawn[0].numel() + 19)
            view = wide[:, 3 : 3 + drawn[0].numel()].view(drawn.shape)
            return view.copy_(drawn)
        return drawn

    features = numbers(130, 37)
    inputs = {
        "features": features,
        "activation": "relu",
        "singular_values": singular_values(features),
        "gradients": [numbers(61, 45), numbers(61)],
        "weights": [numbers(61, 45), numbers(61)],
        "previous_weights": [numbers(61, 45), numbers(61)],
        "loss_before": numbers().abs() + scale,
        "loss_after": numbers().abs() + scale,
    }
    return {name: inputs[name] for name in sorted(metric.required | metric.optional)}


def _of(inputs: dict[str, Any], members: slice) -> dict[str, Any]:
    """Some members' inputs."""

    def part(value: Any) -> Any:
        if isinstance(value, list):
            return [one[members] for one in value]
        return value[members] if isinstance(value, Tensor) else value

    return {key: part(value) for key, value in inputs.items()}
