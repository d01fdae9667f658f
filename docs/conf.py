"""How the documentation is built: Sphinx, furo, MyST."""

from layercache._version import __version__

project = "layercache"
author = "layercache contributors"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "examples", "Thumbs.db"]
html_theme = "furo"
html_title = "layercache"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
default_role = "code"
suppress_warnings = ["misc.highlighting_failure"]  # an ellipsis in an excerpt
