"""How Sphinx builds this documentation: `make docs`."""

import re
import sys
import typing
from pathlib import Path

from sphinx.errors import ConfigError

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import api_pages  # noqa: E402

import jaxface  # noqa: E402

try:
    api_pages.write_pages()
except ValueError as error:
    raise ConfigError(str(error)) from error

project = "jaxface"
author = "the jaxface authors"
copyright = "the jaxface authors, Apache-2.0"
release = jaxface.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
exclude_patterns = ["_build"]
default_role = "py:obj"
html_theme = "furo"
html_title = f"jaxface {release}"
html_static_path = ["_static"]
html_css_files = ["jaxface.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"


def skip_member(app, what, name, member, skip, options):
    """Leaves out what api_pages writes itself (constants) and what Python made (the fields of named tuples)."""
    constant = what == "module" and (typing.get_origin(member) is not None or not callable(member))
    return True if constant or type(member).__name__ == "_tuplegetter" else None


def plain_docstring(app, what, name, member, options, lines):
    """Our docstrings are plain text, not markup; napoleon comes after this and reads Google's sections."""
    lines[:] = api_pages.plain_text(lines)


def short_types(app, what, name, member, options, signature, returns):
    """Array types as the source writes them: Float[Array | np.ndarray, "B V 3"]."""

    def shorten(text):
        text = re.sub(r"~?jaxlib\._jax\.Array", "Array", text or "")
        text = re.sub(r"~?(numpy\.)?ndarray", "np.ndarray", text)
        return (
            re.sub(r"([\w.~]+)\[Array, ('[^']*')\] \| \1\[np\.ndarray, \2\]", r"\1[Array | np.ndarray, \2]", text)
            or None
        )

    return shorten(signature), shorten(returns)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
    app.connect("autodoc-process-signature", short_types)
    app.connect("autodoc-skip-member", skip_member)
