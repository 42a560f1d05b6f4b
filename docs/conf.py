"""Sphinx's configuration."""

import importlib.metadata

project = "dbtestcase"
author = "The dbtestcase maintainers"
copyright = author
try:
    release = importlib.metadata.version("dbtestcase")
except importlib.metadata.PackageNotFoundError:  # a clone that is not installed
    release = ""

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
html_theme = "alabaster"
html_theme_options = {"description": "unittest for SQLAlchemy, on the real database", "page_width": "1080px"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
