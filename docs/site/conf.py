"""How Sphinx makes the site; `build.py` stages the pages and calls it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import plain  # noqa: E402
from names import short_names  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.domains.python import PyObject  # noqa: E402

from clrl.version import __version__  # noqa: E402

project = "clrl"
author = "The clrl authors"
copyright = "the clrl authors, MIT licence"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
source_suffix = {".md": "markdown"}
# Names in single backticks are links where there is such an object, and code where there is none.
default_role = "py:obj"
show_warning_types = True

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_maximum_signature_line_length = 80
toc_object_entries = False

html_theme = "furo"
html_title = f"clrl {__version__}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # would ask for pages, which a browser does not give a file
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """Read docstrings as plain text, and give their short names objects."""
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    app.connect("missing-reference", short_names)
    for kind in PyObject.doc_field_types:
        if kind.name == "variable":
            kind.label = "Attributes"  # as docstrings call them
