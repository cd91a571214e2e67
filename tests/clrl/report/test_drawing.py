"""How figures look."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb

from clrl.report import drawing


def test_styles_differ_without_colour() -> None:
    made = list(drawing.styles([str(i) for i in range(49)]).values())
    assert len({(style.color, style.dashes, style.marker) for style in made}) == 49
    seven = made[:7]
    assert len({style.dashes for style in seven}) == len({style.marker for style in seven}) == 7
    # Relative luminance (Rec. 709): neighbours differ in grey as well.
    grey = [np.dot([0.2126, 0.7152, 0.0722], to_rgb(style.color)) for style in seven]
    assert all(abs(a - b) > 0.05 for a, b in zip(grey, grey[1:], strict=False))
