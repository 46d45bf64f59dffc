"""How Sphinx builds the documentation: ``nox -s docs``."""

import inspect
import os
import pydoc
import re

from sphinx.pycode import ModuleAnalyzer

import trioqt
from trioqt import AbstractSocket, TcpServer, TcpSocket

project = "trioqt"
copyright = "The trioqt contributors"
release = version = trioqt.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib_trio"]
exclude_patterns = ["_build", "newsfragments"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"trioqt {release}"
html_static_path = ["_static"]
html_favicon = "_static/mark.svg"
html_css_files = ["trioqt.css"]

# Links into other documentation need their inventories from the net, and a build must not depend on it.
if "READTHEDOCS" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
# trio's own docstrings refer to labels of trio's documentation.
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # "Attributes:" describes what autodoc lists by itself

HEADS = "Raises|Returned|Cancelled|Qt|State"
HEAD = re.compile(rf"({HEADS}): +(?=\S)")
LATER_HEAD = re.compile(rf"(?<=\.)  (?=(?:{HEADS}): )")


def set_heads_apart(lines: list[str]) -> None:
    """``Cancelled: nothing was taken.`` and its like become paragraphs of their own, with the head in bold.

    The head's text may go on in indented lines, and one line may hold several heads.
    """
    result: list[str] = []
    in_head = False
    for line in (part for given in lines for part in LATER_HEAD.split(given)):
        if HEAD.match(line):
            in_head = True
            result += ["", HEAD.sub(r"**\1:** ", line, count=1)]
        elif in_head and line.startswith(" "):
            result.append(line.lstrip())
        else:
            if in_head and line:
                result.append("")
            in_head = False
            result.append(line)
    lines[:] = result


def text_of_base(name: str) -> list[str]:
    """The docstring of the nearest class of ours that has one for this method, which is overridden without a word."""
    owner, _, member = name.rpartition(".")
    cls = pydoc.locate(owner)
    for base in getattr(cls, "__mro__", ()):
        doc = getattr(vars(base).get(member), "__doc__", None)
        if doc and base.__module__.startswith("trioqt."):
            return inspect.cleandoc(doc).splitlines()
    return []


def put_in_order(cls: type) -> None:
    """What ``cls`` inherits from other classes of ours comes after its own, each in the order of its source.

    autodoc knows the order of the class's own module only, and would list the rest by the alphabet.
    """
    order = order_in(cls)
    for base in cls.__mro__[1:]:
        if base.__module__.startswith("trioqt."):
            theirs = order_in(base)
            for name in sorted(theirs, key=lambda name: theirs[name]):
                owner, _, member = name.partition(".")
                if owner == base.__name__:
                    order.setdefault(f"{cls.__name__}.{member}", len(order))


def order_in(cls: type) -> dict[str, int]:
    analyzer = ModuleAnalyzer.for_module(cls.__module__)
    analyzer.analyze()
    return analyzer.tagorder


def setup(app):  # type: ignore[no-untyped-def]
    def process(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
        if what in ("method", "property") and not any(lines):
            lines[:] = text_of_base(name)
        set_heads_apart(lines)

    for cls in (AbstractSocket, TcpSocket, TcpServer):
        put_in_order(cls)

    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon, which has 500
