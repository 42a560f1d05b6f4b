"""Sphinx's configuration."""

import importlib.metadata
import re
import unittest
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

project = "dbtestcase"
author = "The dbtestcase maintainers"
copyright = author
try:
    release = importlib.metadata.version("dbtestcase")
except importlib.metadata.PackageNotFoundError:  # a clone that is not installed
    release = ""

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"dbtestcase {release}".strip()
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sphinx = False
pygments_style = "friendly"
smartquotes = False  # the page of errors holds what is to be typed
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_display_short_literal_types = True
python_maximum_signature_line_length = 80


# The types of attributes as a reader wants them, where the checkers' own are long.
TYPES = {
    "metadata": "MetaData, or what has one, or several",
    "engines": "Engine, AsyncEngine or a function, or several",
    "outside": "Engine, AsyncEngine or a function, or several",
    "factories": "Factories, or a list",
    "migrations": "str | Path | Config | None",
}


def _shorten_types(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """``ClassVar[str]`` is read as ``str``, ``Given[Session, AsyncSession]`` as what a test has: ``AsyncSession``."""
    if kind != "attribute" or not isinstance(content.parent, addnodes.desc):
        return
    for signature in content.parent.children[:-1]:
        name = signature.get("fullname", "").rpartition(".")[2]
        typed = False
        for annotation in [node for node in signature if isinstance(node, addnodes.desc_annotation)]:
            text = annotation.astext()
            if text.startswith(": "):
                typed = True
                short = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text[2:])
                shown = TYPES.get(name, re.sub(r"Given\[\w+, (\w+)\]|ClassVar\[(.*)\]", r"\1\2", short))
                annotation.clear()
                annotation += nodes.Text(f": {shown}")
            elif "<dbtestcase." in text:
                signature.remove(annotation)
        if name in TYPES and not typed:
            signature += addnodes.desc_annotation("", "", nodes.Text(f": {TYPES[name]}"))


def _without_method_name(app: Sphinx, what: str, name: str, of: Any, *_: Any) -> tuple[str, None] | None:
    """Nobody makes a test case by calling its class."""
    return ("", None) if what == "class" and issubclass(of, unittest.TestCase) else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", _without_method_name)
    app.connect("object-description-transform", _shorten_types)
    return {"parallel_read_safe": True}
