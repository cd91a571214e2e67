"""Types for options: what a setting may be, written where the setting is declared.

Options are fields of frozen dataclasses. A field's type says which values are allowed;
`clrl.settings.config` checks values against it and reports what was expected.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
"""A number in [0, 1]."""
Decay = Annotated[float, Ge(0), Lt(1)]
"""The decay rate of a running average, in [0, 1)."""


def as_keywords(options: Any) -> dict[str, Any]:
    """The fields of an options dataclass, for a constructor that takes them as keywords."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
