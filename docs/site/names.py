"""Finds what a docstring means by a short name, such as `UPGD` for ``clrl.optim.UPGD``."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def short_names(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.TextElement
) -> Any:
    """A link for a reference that Sphinx did not resolve; None where none or several are meant."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target = node["reftarget"].removesuffix("()")
    ends = f".{target.rpartition('.')[2]}" if target.startswith("clrl.") else f".{target}"
    found = {
        (entry.docname, entry.node_id)
        for name, entry in env.domains.python_domain.objects.items()
        if name.endswith(ends) and not entry.aliased
    }
    if len(found) != 1:
        return None
    page, anchor = found.pop()
    return make_refnode(app.builder, node["refdoc"], page, anchor, content, target)
